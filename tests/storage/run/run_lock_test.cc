// One writer on one host.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "run_contents.h"
#include "storage/scratch_folder.h"

using namespace run_fixture;

namespace {

[[noreturn]] void wait_for_ever() {
  for (;;) ::pause();
}

/// A process that ends when this object does, however the test ends.
class Process {
 public:
  explicit Process(pid_t pid) : pid_(pid) {}
  ~Process() { end(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);  // fails for a grandchild, for which its own parent waits
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

/// Forks a process that shares all open files of this one.
pid_t fork_idle() {
  const pid_t pid = ::fork();
  if (pid == 0) wait_for_ever();
  return pid;
}

}  // namespace

TEST_CASE("a_second_start_on_the_same_host_is_refused_with_a_sentence_unless_it_takes_over") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  const auto other = open_file_store(folder / "run");
  auto first = open_run(*store);
  REQUIRE(first->save(version(10)).ok());
  const auto second = open_run(*other, {.session = "bbbbbbbb"});
  REQUIRE(second.writer.code() == StatusCode::busy);
  CHECK(
      second.writer.status().message() ==
      "run test in " + (folder / "run").string() +
          " is already running as pid 1 on host host since 2026-01-01T00:00:00Z; wait for it, end it, or take the run "
          "over with --holdfast.take-over");
  REQUIRE(first->save(version(11)).ok());

  auto third = open_run(*other, {.session = "cccccccc", .take_over = true});
  REQUIRE(third.ok());
  CHECK(third.step == 11);
  const auto stale = first->save(version(12));
  REQUIRE(stale.code() == StatusCode::superseded);
  CHECK(stale.status().message().find("was taken over by session cccccccc on host host (pid 1)") != std::string::npos);
  CHECK(first->save(version(13)).code() == StatusCode::superseded);
  CHECK(first->prune({}).code() == StatusCode::superseded);
  CHECK(third->save(version(14)).ok());
}

TEST_CASE("a_child_that_outlives_its_session_does_not_block_later_sessions") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  SECTION("after a normal end") {
    auto session = open_run(*store);
    const Process child(fork_idle());
    REQUIRE(session->note(NoteKind::close, {}, "end", {}).ok());
    const auto next = open_run(*store, {.session = "bbbbbbbb"});
    CHECK(next.ok());
    CHECK(next.said.empty());
  }
  SECTION("after a death, which is reported, and the next session holds the lock") {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t forked = ::fork();
    if (forked == 0) {
      auto session = open_run(*store);
      const pid_t idle = fork_idle();
      (void)!::write(ready[1], &idle, sizeof idle);
      wait_for_ever();
    }
    Process trainer(forked);
    pid_t idle = 0;
    REQUIRE(::read(ready[0], &idle, sizeof idle) == static_cast<ssize_t>(sizeof idle));
    const Process helper(idle);
    CHECK(open_run(*store, {.session = "cccccccc"}).writer.code() == StatusCode::busy);
    trainer.end();
    {
      const auto next = open_run(*store, {.session = "bbbbbbbb"});
      CHECK(next.ok());
      REQUIRE(next.said.size() == 1);
      CHECK(next.said[0].find("a process that it started keeps the lock") != std::string::npos);
      const auto third = open_run(*open_file_store(folder / "run"), {.session = "dddddddd"});
      CHECK(third.writer.code() == StatusCode::busy);
    }
    ::close(ready[0]);
    ::close(ready[1]);
  }
  SECTION("and its own end does not release the lock") {
    auto session = open_run(*store);
    const pid_t child = ::fork();
    if (child == 0) {
      session = open_run(*store, {.session = "eeeeeeee"});  // the copy of the parent's session ends here
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    CHECK(open_run(*store, {.session = "bbbbbbbb"}).writer.code() == StatusCode::busy);
  }
}

TEST_CASE("a_holder_of_unknown_state_keeps_its_lock") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  auto session = open_run(*store);
  const Path lock = folder / "run" / "hints" / "session.lock";
  for (const std::string process : {"", "\nprocess 999999 1 other-boot/pid:[1]", "\nprocess x", "\nprocess ../1 1 x"}) {
    REQUIRE(store->put("hints/session.lock", "pid 9 on host elsewhere" + process).ok());
    const auto next = open_run(*store, {.session = "bbbbbbbb"});
    REQUIRE(next.writer.code() == StatusCode::busy);
    CHECK(next.writer.status().message().find("is already running as pid 9 on host elsewhere;") != std::string::npos);
  }
}
