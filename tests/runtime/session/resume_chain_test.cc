// Bit-identical resume by chains: each process resumes, is killed at its next step, and the next one continues. At the
// end weights, optimizer, generators, the order of samples and every loss equal those of a process that was never
// killed.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <set>

#include "catch.h"
#include "chain.h"
#include "newest_state.h"
#include "program_beside.h"
#include "ranks.h"
#include "storage/scratch_folder.h"

namespace {

using namespace holdfast::storage;

enum class Start { fork, exec };

struct EndedChain {
  bool killed = false;
  int code = -1;
  std::vector<chain::Record> trace;
};

// This process has loaded LibTorch and started no thread, so a fork of it is like a process that has just started.
EndedChain run(chain::Program program, Start start) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  program.trace = ends[1];
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    const int quiet = ::open("/dev/null", O_WRONLY);
    ::dup2(quiet, STDERR_FILENO);
    if (start == Start::fork) ::_exit(chain::train(program));
    const std::string path = program_beside("chain");
    ::execl(path.c_str(), path.c_str(), program.dir.c_str(), program.run.c_str(), program.optimizer.c_str(),
            std::to_string(program.workers).c_str(), std::to_string(program.steps).c_str(), program.every.c_str(),
            program.kill.c_str(), std::to_string(program.trace).c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  EndedChain ended;
  chain::Record record;
  while (::read(ends[0], &record, sizeof record) == sizeof record) ended.trace.push_back(record);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ended.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ended;
}

// Both runs ended in the same state, which includes these tensors.
void check_same_end(const ScratchFolder& folder, const std::vector<std::string>& tensors) {
  const auto expected = newest_state(folder / "undisturbed");
  const auto found = newest_state(folder / "killed");
  CHECK(found.first == expected.first);
  CHECK(found.second == expected.second);
  for (const std::string& tensor : tensors) {
    INFO(tensor);
    CHECK(expected.first.contains(tensor));
  }
}

struct Counts {
  int processes = 0;
  int kills = 0;
};

// Resumes and kills until the run is complete, then compares it with an uninterrupted run that never saved.
Counts check_chain(const std::string& optimizer, int workers, std::uint64_t steps, Start start, unsigned seed) {
  const ScratchFolder folder(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  INFO("optimizer " << optimizer << ", workers " << workers << ", seed " << seed);
  chain::Program program;
  program.dir = folder.path().string();
  program.optimizer = optimizer;
  program.workers = workers;
  program.steps = steps;

  program.run = "undisturbed";
  program.every = "never";
  const EndedChain whole = run(program, start);
  REQUIRE(whole.code == 0);
  REQUIRE(whole.trace.size() >= steps);
  program.run = "killed";
  program.every = "1";

  Counts counts;
  std::mt19937 random(seed);
  const std::vector<std::string> inside = {"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"};
  std::map<std::uint64_t, chain::Record> seen;
  for (int turn = 0;; ++turn) {
    REQUIRE(counts.processes < static_cast<int>(whole.trace.size()) * 4 + 10);
    program.kill = turn % 3 == 0 ? "before" : turn % 3 == 1 ? inside[random() % inside.size()] : "after";
    const EndedChain ended = run(program, start);
    ++counts.processes;
    for (const chain::Record& record : ended.trace) {
      INFO("step " << record.step);
      REQUIRE(record.step >= 1);
      REQUIRE(record.step <= whole.trace.size());
      REQUIRE(record == whole.trace[record.step - 1]);
      seen[record.step] = record;
    }
    if (!ended.killed) {
      REQUIRE(ended.code == 0);
      if (ended.trace.empty()) break;  // nothing was left to do
      continue;
    }
    ++counts.kills;
    REQUIRE(ended.trace.size() >= 1);
  }
  CHECK(seen.size() == whole.trace.size());
  check_same_end(folder, {"generator.cpu", "net.norm.running_var"});
  return counts;
}

// A chain of several ranks: one of them or all are killed, and all are started again. The results of every rank in
// every step are compared.
Counts check_chain_of_ranks(int ranks_of_run, const std::string& precision, std::uint64_t steps, unsigned seed) {
  const ScratchFolder folder(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  INFO(ranks_of_run << " ranks, precision " << precision << ", seed " << seed);
  chain::Program program;
  program.dir = folder.path().string();
  program.steps = steps;
  program.precision = precision;

  std::vector<ranks::Ended> ended;
  const auto start = [&] {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    program.trace = ends[1];
    ended = ranks::run_sessions(ranks_of_run, [&] { return chain::train(program); });
    ::close(ends[1]);
    std::vector<chain::Record> trace;
    chain::Record record;
    while (::read(ends[0], &record, sizeof record) == sizeof record) trace.push_back(record);
    ::close(ends[0]);
    return trace;
  };
  program.run = "undisturbed";
  program.every = "never";
  std::map<std::pair<std::uint64_t, int>, chain::Record> whole;
  for (const chain::Record& record : start()) whole[{record.step, record.rank}] = record;
  for (const auto& rank : ended) {
    INFO(rank.text);
    REQUIRE(rank.code == 0);
  }
  REQUIRE(whole.size() >= steps * static_cast<std::uint64_t>(ranks_of_run));
  program.run = "killed";
  program.every = "1";

  Counts counts;
  std::mt19937 random(seed);
  std::set<std::pair<std::uint64_t, int>> seen;
  const std::vector<std::string> whens = {"before", "after", "inside", "S2", "S5", "S6"};
  for (int turn = 0;; ++turn) {
    REQUIRE(counts.processes < static_cast<int>(whole.size()) * 4 + 10);
    program.kill_rank = turn % 3 == 0 ? -1 : static_cast<int>(random() % static_cast<unsigned>(ranks_of_run));
    program.kill = whens[random() % (program.kill_rank > 0 ? 3 : whens.size())];  // only rank 0 saves
    const auto trace = start();
    ++counts.processes;
    for (const chain::Record& record : trace) {
      INFO("step " << record.step << ", rank " << record.rank);
      const auto found = whole.find({record.step, record.rank});
      REQUIRE(found != whole.end());
      REQUIRE(record == found->second);
      seen.insert(found->first);
    }
    bool over = true;
    for (const auto& rank : ended) {
      INFO(rank.text);
      counts.kills += rank.code == -SIGKILL;
      REQUIRE((rank.code == 0 || rank.code == 1 || rank.code == -SIGKILL));
      over = over && rank.code == 0;
    }
    if (over && trace.empty()) break;
  }
  CHECK(seen.size() == whole.size());
  check_same_end(folder, {"generator.cpu@1", "pipeline.stage.ema.out.weight"});
  return counts;
}

void report(const std::string& what, const Counts& counts) {
  std::cout << "resume chain, " << what << ": processes=" << counts.processes << " kills=" << counts.kills
            << " differing=0\n";
}

}  // namespace

TEST_CASE("a_chain_of_killed_processes_computes_what_one_process_computes", "[full]") {
  for (const int workers : {0, 2}) {
    report("AdamW, 24 steps, workers " + std::to_string(workers), check_chain("AdamW", workers, 24, Start::fork, 1));
  }
  for (const std::string optimizer : {"Adam", "SGD", "RMSprop", "Adagrad", "LBFGS"}) {
    report(optimizer + ", 8 steps", check_chain(optimizer, 0, 8, Start::fork, 2));
  }
}

TEST_CASE("a_chain_of_processes_started_by_exec_computes_what_one_process_computes", "[full]") {
  const Counts counts = check_chain("AdamW", 2, 8, Start::exec, 3);
  report("AdamW by exec, 8 steps, workers 2", counts);
  CHECK(counts.processes >= 20);
}

TEST_CASE("a_chain_of_killed_ranks_computes_what_undisturbed_ranks_compute", "[full]") {
  report("2 ranks, fp32 by pipeline, 8 steps", check_chain_of_ranks(2, "fp32", 8, 6));
  report("3 ranks, fp16 by pipeline, 7 steps", check_chain_of_ranks(3, "fp16", 7, 7));
}

TEST_CASE("long_chains_of_killed_ranks_compute_what_undisturbed_ranks_compute", "[long]") {
  for (const std::string precision : {"fp32", "bf16", "fp16"}) {
    report("2 ranks, " + precision + " by pipeline, 50 steps", check_chain_of_ranks(2, precision, 50, 8));
  }
  report("3 ranks, fp32 by pipeline, 21 steps", check_chain_of_ranks(3, "fp32", 21, 9));
}

TEST_CASE("long_chains_of_killed_processes_compute_what_one_process_computes", "[long]") {
  for (const int workers : {0, 2}) {
    report("AdamW, 200 steps, workers " + std::to_string(workers), check_chain("AdamW", workers, 200, Start::fork, 4));
  }
  for (const std::string optimizer : {"Adam", "SGD", "RMSprop", "Adagrad", "LBFGS"}) {
    report(optimizer + ", 24 steps", check_chain(optimizer, 0, 24, Start::fork, 5));
  }
}
