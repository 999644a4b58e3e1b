// The training program of chain.h as a separate process, or as one of several ranks:
//   chain DIR RUN OPTIMIZER WORKERS STEPS EVERY KILL TRACE [PRECISION DEVICE KILL_RANK]
#include <cstdlib>

#include "chain.h"

int main(int argc, char** argv) {
  if (argc != 9 && argc != 12) return 2;
  chain::Program program;
  program.dir = argv[1];
  program.run = argv[2];
  program.optimizer = argv[3];
  program.workers = std::atoi(argv[4]);
  program.steps = std::strtoull(argv[5], nullptr, 10);
  program.every = argv[6];
  program.kill = argv[7];
  program.trace = std::atoi(argv[8]);
  if (argc == 12) {
    program.precision = argv[9];
    program.device = argv[10];
    program.kill_rank = std::atoi(argv[11]);
  }
  return chain::train(program);
}
