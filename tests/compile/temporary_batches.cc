// says: give the batches a name first
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  for (auto& epoch : session.epochs({.count = 2}, std::vector<torch::Tensor>(3))) (void)epoch;
  return session.finish();
}
