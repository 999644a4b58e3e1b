// Exit codes of programs: with repeated stop requests, with a reader of their output that leaves, and restarted by the
// real holdfast launch.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "catch.h"
#include "checkpoint/store_files.h"
#include "program_beside.h"
#include "ranks.h"
#include "session_run.h"
#include "storage/observed_steps.h"

namespace {

using namespace holdfast;
using namespace std::chrono_literals;

struct StoppedProgram {
  int code = -1;  // or minus the signal
  int signals = 0;
};

// A program that trains until a stop request, and unloads everything at exit; it gets a stop request every 30 ms.
StoppedProgram stop_again_and_again(const ScratchFolder& folder) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    SessionOptions options;
    options.dir = folder.path().string();
    options.run = "run";
    options.every = "never";
    options.device = "cpu";
    auto session = Session::start(options);
    torch::nn::Linear net(100, 100);
    torch::optim::Adam optimizer(net->parameters(), 1e-3);
    session.track("net", net).track("optimizer", optimizer);
    for (auto& step : session.steps()) {
      optimizer.zero_grad();
      net->forward(torch::rand({8, 100})).square().mean().backward();
      optimizer.step();
      if (step.number() % 20 == 1) (void)!::write(ends[1], "s", 1);
    }
    std::exit(session.finish());
  }
  ::close(ends[1]);
  char word;
  REQUIRE(::read(ends[0], &word, 1) == 1);
  StoppedProgram ended;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    ::kill(child, SIGTERM);
    ++ended.signals;
    std::this_thread::sleep_for(30ms);
  }
  ::close(ends[0]);
  ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ended;
}

void stop_runs_again_and_again(int runs) {
  const ScratchFolder folder;
  int right = 0, signals = 0;
  for (int run = 0; run < runs; ++run) {
    const StoppedProgram ended = stop_again_and_again(folder);
    CHECK(ended.code == kRunAgain);
    right += ended.code == kRunAgain ? 1 : 0;
    signals += ended.signals;
  }
  std::cout << "exit_codes: runs=" << runs << " with_75=" << right << " signals=" << signals << std::endl;
}

/// Closes the reading end of this process's output in the middle of its second save.
class ReaderThatLeaves final : public ObservedSteps {
 public:
  ReaderThatLeaves() {
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    reader_ = ends[0];
  }
  void reached(std::string_view step) override {
    if (step.starts_with("S2") && ++saves_ == 2) ::close(reader_);
  }

 private:
  int reader_;
  int saves_ = 0;
};

int train_without_a_reader(const storage::Path& folder, bool is_main) {
  std::optional<ReaderThatLeaves> steps;
  if (is_main) set_store_steps(&steps.emplace());
  SessionOptions options;
  options.dir = folder.string();
  options.run = "run";
  options.every = "2";
  options.keep = 0;
  options.device = "cpu";
  auto session = Session::start(options);
  double x = 0;
  session.track("x", x);
  for (auto& step : session.steps({.count = 8})) {
    x += 1;
    session.print("step {}\n", step.number());
    std::fflush(stdout);
  }
  return session.finish();
}

std::vector<std::uint64_t> saved_steps(const ScratchFolder& folder, const std::string& run = "run") {
  const auto store = storage::open_file_store(folder / run, {.read_only = true});
  storage::History history;
  REQUIRE(history.refresh(*store).ok());
  std::vector<std::uint64_t> steps;
  for (const auto& version : history.versions()) {
    steps.push_back(storage::VersionReader::open(*store, version.uid)->manifest().position.step);
  }
  return steps;
}

/// `holdfast launch` of the program bin/chain; if `dies`, each start is killed in its second step. Returns the exit
/// code.
int launch_chain(const ScratchFolder& folder, bool dies, const std::string& variable = "HOLDFAST_KEEP",
                 const std::string& value = "0") {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const int log = ::open((folder / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::setenv("HOLDFAST_KEEP", "0", 1);
    ::setenv(variable.c_str(), value.c_str(), 1);
    std::vector<std::string> words{program_beside("holdfast"),
                                   "launch",
                                   "--max-restarts",
                                   "9",
                                   "--backoff",
                                   "10ms",
                                   program_beside("chain"),
                                   folder.path().string(),
                                   "run",
                                   "SGD",
                                   "0",
                                   "8",
                                   "1",
                                   dies ? "after" : "",
                                   "-1"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

TEST_CASE("a_complete_run_that_gets_sigterm_at_exit_ends_with_0") {
  const ScratchFolder folder;
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    ::signal(SIGTERM, SIG_DFL);             // the test framework handles it
    std::atexit([] { ::raise(SIGTERM); });  // registered before the session, so it runs after the session's handlers
    SessionOptions options;
    options.dir = folder.path().string();
    options.run = "run";
    options.device = "cpu";
    auto session = Session::start(options);
    double sum = 0;
    session.track("sum", sum);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) sum += 1;
    std::exit(session.finish());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == kDone));
}

TEST_CASE("repeated_stop_signals_end_a_run_with_75", "[full]") { stop_runs_again_and_again(5); }

TEST_CASE("repeated_stop_signals_end_each_of_fifty_runs_with_75", "[long]") { stop_runs_again_and_again(50); }

TEST_CASE("a_closed_output_pipe_does_not_disturb_a_save", "[full]") {
  const ScratchFolder folder;
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(train_without_a_reader(folder.path(), /*is_main=*/true));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == kDone);
  CHECK(saved_steps(folder) == std::vector<std::uint64_t>{2, 4, 6, 8});
}

TEST_CASE("a_closed_output_pipe_of_two_ranks_does_not_disturb_a_save", "[full]") {
  const ScratchFolder folder;
  const auto ended = ranks::run_sessions(
      2, [&]() -> int { return train_without_a_reader(folder.path(), std::string(std::getenv("RANK")) == "0"); });
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == kDone);
  }
  CHECK(saved_steps(folder) == std::vector<std::uint64_t>{2, 4, 6, 8});
}

TEST_CASE("from_and_fresh_apply_once_under_launch_that_restarts", "[full]") {
  const ScratchFolder folder;
  const auto history = [&] {
    const auto store = storage::open_file_store(folder / "run", {.read_only = true});
    storage::History all;
    REQUIRE(all.refresh(*store).ok());
    return all;
  };
  CHECK(launch_chain(folder, /*dies=*/false) == kDone);
  CHECK(saved_steps(folder) == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8});
  std::size_t starts = 0;
  SECTION("from") {
    const auto saved = history();
    const std::string fourth = saved.versions()[3].uid.short_text();
    CHECK(launch_chain(folder, /*dies=*/true, "HOLDFAST_FROM", fourth) == kDone);
    starts = 4;  // one for each step after the fourth
  }
  SECTION("fresh") {
    CHECK(launch_chain(folder, /*dies=*/true, "HOLDFAST_FRESH", "true") == kDone);
    starts = 8;
  }
  std::size_t rewinds = 0;
  const auto all = history();
  for (const auto& open : all.opens()) rewinds += open.rewind ? 1 : 0;
  CHECK(rewinds == 1);
  CHECK(all.opens().size() == 1 + starts);
  CHECK(saved_steps(folder).back() == 8);
}
