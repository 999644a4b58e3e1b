// A start passes over a version that verifies only after two diagnosed deaths of the same program soon after loading
// it. Real child processes die in real ways.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <thread>

#include "../scratch_folder.h"
#include "catch.h"
#include "holdfast/storage/run/death_note.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "work.h"

namespace holdfast::storage::model {
namespace {

OpenRequest request_of(const std::string& program) {
  OpenRequest request;
  request.run = "run";
  request.session = random_session_id();
  request.host = "host";
  request.pid = getpid();
  request.platform = "test";
  request.program = program;
  return request;
}

std::unique_ptr<Store> store_at(const Path& folder) { return open_file_store(folder / "run", {false, false}); }

// A run with two versions, whose work is [1] and [1 2].
void make_run(const Path& folder) {
  auto store = store_at(folder);
  Work work;
  auto run = open_work(*store, request_of("program"), work);
  REQUIRE(run.ok());
  REQUIRE(save_work(**run, work, 1).ok());
  REQUIRE(save_work(**run, work, 2).ok());
}

// The work that `program` would resume from.
Work found_by(const Path& folder, const std::string& program) {
  auto store = store_at(folder);
  History history;
  REQUIRE(history.refresh(*store).ok());
  ChooseOptions options;
  options.program = program;
  auto choice = choose_base(history, options);
  REQUIRE(choice.ok());
  REQUIRE(choice->version);
  auto version = VersionReader::open(*store, choice->version->uid);
  REQUIRE(version.ok());
  REQUIRE(version->verify().empty());
  return version->manifest().values.at("work").get<Work>();
}

const Work kNewest = {1, 2};
const Work kOlder = {1};

enum class Death { segv, bus, fpe, abrt, exception, kill, term, overflow, overflow_of_another_stack };
constexpr Death kDiagnosed[] = {Death::segv, Death::bus, Death::fpe, Death::abrt, Death::exception};

// Each call needs its own stack frame, because the volatile array is read after the next call.
int recurse(int depth) {
  volatile char room[1024];
  room[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : recurse(depth + 1) + room[0];
}

void overflow_stack() {
  const rlimit enough = {1 << 20, RLIM_INFINITY};  // without a limit, memory would run out first
  setrlimit(RLIMIT_STACK, &enough);
  recurse(0);
}

// In a thread that has an alternative signal stack of its own.
void overflow_another_stack() {
  std::thread([] {
    static char room[64 * 1024];
    stack_t stack{};
    stack.ss_sp = room;
    stack.ss_size = sizeof room;
    sigaltstack(&stack, nullptr);
    overflow_stack();
  }).join();
}

void die(Death how) {
  switch (how) {
    case Death::segv:
      raise(SIGSEGV);
      break;
    case Death::bus:
      raise(SIGBUS);
      break;
    case Death::fpe:
      raise(SIGFPE);
      break;
    case Death::abrt:
      std::abort();
    case Death::exception:
      throw std::runtime_error("this is never caught");
    case Death::kill:
      raise(SIGKILL);
      break;
    case Death::term:
      raise(SIGTERM);
      break;
    case Death::overflow:
      overflow_stack();
      break;
    case Death::overflow_of_another_stack:
      overflow_another_stack();
      break;
  }
}

// A process that opens the run, loads its base, completes some steps and dies. Its exception is never caught, because
// this function is `noexcept`.
[[noreturn]] void live_and_die(const Path& folder, const std::string& program, Death how,
                               std::uint64_t steps) noexcept {
  // Only the product's signal handlers and their stack, no core files, no output on the terminal.
  stack_t no_stack{};
  no_stack.ss_flags = SS_DISABLE;
  sigaltstack(&no_stack, nullptr);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGTERM}) ::signal(signal, SIG_DFL);
  std::set_terminate([] { std::abort(); });
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);

  auto store = store_at(folder);
  Work work;
  auto run = open_work(*store, request_of(program), work);
  if (!run.ok()) _exit(1);
  arm_death_note(folder / "run", (*run)->prepare_death_note());
  for (std::uint64_t step = 1; step <= steps; ++step) death_note_steps(step);
  die(how);
  _exit(2);
}

int end_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

void one_death(const Path& folder, const std::string& program, Death how, std::uint64_t steps = 3) {
  const pid_t child = fork();
  if (child == 0) live_and_die(folder, program, how, steps);
  REQUIRE(WIFSIGNALED(end_of(child)));
}

TEST_CASE("two_diagnosed_deaths_pass_over_a_version_and_one_does_not") {
  for (const Death how : kDiagnosed) {
    const ScratchFolder folder;
    make_run(folder.path());
    INFO("death " << static_cast<int>(how));
    one_death(folder.path(), "program", how);
    CHECK(found_by(folder.path(), "program") == kNewest);
    one_death(folder.path(), "program", how);
    CHECK(found_by(folder.path(), "program") == kOlder);
  }
}

TEST_CASE("a_stack_overflow_is_a_diagnosed_death_on_threads_with_an_alternative_signal_stack") {
  for (const Death how : {Death::overflow, Death::overflow_of_another_stack}) {
    const ScratchFolder folder;
    make_run(folder.path());
    INFO("death " << static_cast<int>(how));
    one_death(folder.path(), "program", how);
    CHECK(found_by(folder.path(), "program") == kNewest);
    one_death(folder.path(), "program", how);
    CHECK(found_by(folder.path(), "program") == kOlder);
  }
}

TEST_CASE("two_deaths_of_different_kinds_count_together") {
  const ScratchFolder folder;
  make_run(folder.path());
  one_death(folder.path(), "program", Death::segv);
  one_death(folder.path(), "program", Death::exception);
  CHECK(found_by(folder.path(), "program") == kOlder);
}

TEST_CASE("deaths_of_another_build_do_not_count") {
  const ScratchFolder folder;
  make_run(folder.path());
  one_death(folder.path(), "earlier build", Death::segv);
  one_death(folder.path(), "earlier build", Death::segv);
  CHECK(found_by(folder.path(), "program") == kNewest);
  CHECK(found_by(folder.path(), "earlier build") == kOlder);
  one_death(folder.path(), "program", Death::segv);
  CHECK(found_by(folder.path(), "program") == kNewest);
}

TEST_CASE("deaths_long_after_loading_do_not_count") {
  const ScratchFolder folder;
  make_run(folder.path());
  for (int i = 0; i < 3; ++i) one_death(folder.path(), "program", Death::segv, kPoisonSteps);
  CHECK(found_by(folder.path(), "program") == kNewest);
}

TEST_CASE("twenty_kills_during_start_up_pass_over_nothing") {
  const ScratchFolder folder;
  make_run(folder.path());
  std::mt19937 random(1);
  int killed = 0;
  for (int i = 0; i < 20; ++i) {
    INFO("kill " << i);
    if (i % 4 == 3) {  // right after loading, by itself
      one_death(folder.path(), "program", i % 8 == 3 ? Death::kill : Death::term);
      ++killed;
    } else {  // anywhere during start-up
      const pid_t child = fork();
      if (child == 0) live_and_die(folder.path(), "program", Death::kill, 0);
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
      kill(child, SIGKILL);
      const int status = end_of(child);
      killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 1 : 0;
    }
    CHECK(found_by(folder.path(), "program") == kNewest);
  }
  CHECK(killed == 20);
  // And the run resumes from there.
  auto store = store_at(folder.path());
  Work work;
  auto run = open_work(*store, request_of("program"), work);
  REQUIRE(run.ok());
  CHECK(work == kNewest);
  CHECK(save_work(**run, work, 3).ok());
}

}  // namespace
}  // namespace holdfast::storage::model
