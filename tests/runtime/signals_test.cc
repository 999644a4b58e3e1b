#include "holdfast/runtime/signals.h"

#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"

using holdfast::SignalWatch;

namespace {

// Runs in a child, so that a signal which is not caught ends only that; the wait status.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

void raise_here(int signal) { ::kill(::getpid(), signal); }

}  // namespace

TEST_CASE("stop_signals_are_kept_and_the_first_one_is_named") {
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const int status = in_child([&] {
      std::signal(SIGHUP, SIG_DFL);
      std::signal(SIGINT, SIG_DFL);
      SignalWatch watch;
      if (watch.stop_signal() || watch.take_save_request()) return 1;
      raise_here(signal);
      raise_here(SIGTERM);
      return watch.stop_signal() == signal && watch.stop_signal() == signal && !watch.take_save_request() ? 0 : 2;
    });
    CAPTURE(signal);
    CHECK(status == 0);
  }
}

TEST_CASE("usr1_asks_once_for_a_save_and_never_to_stop") {
  CHECK(in_child([] {
          SignalWatch watch;
          raise_here(SIGUSR1);
          raise_here(SIGUSR1);
          return watch.take_save_request() && !watch.take_save_request() && !watch.stop_signal() ? 0 : 1;
        }) == 0);
}

TEST_CASE("a_second_interrupt_ends_the_process_at_once") {
  const int status = in_child([] {
    std::signal(SIGINT, SIG_DFL);
    SignalWatch watch;
    raise_here(SIGTERM);
    raise_here(SIGINT);
    if (watch.stop_signal() != SIGTERM) return 1;
    raise_here(SIGINT);
    return 2;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("where_nothing_is_to_save_a_signal_ends_the_process_with_a_sentence") {
  using holdfast::NothingToSave;
  for (const bool before : {false, true}) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const int status = in_child([&] {
      ::dup2(ends[1], STDERR_FILENO);
      SignalWatch watch;
      { const NothingToSave over("over", 3); }
      if (before) raise_here(SIGTERM);
      const NothingToSave nothing("told to stop", 75);
      raise_here(SIGTERM);
      return 1;
    });
    ::close(ends[1]);
    char said[100] = "";
    const ssize_t got = ::read(ends[0], said, sizeof said);
    ::close(ends[0]);
    CAPTURE(before);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 75);
    CHECK(std::string(said, static_cast<std::size_t>(got)) == "holdfast: told to stop\n");
  }
  CHECK(in_child([] {
          SignalWatch watch;
          { const NothingToSave nothing("told to stop", 75); }
          raise_here(SIGTERM);
          return watch.stop_signal() == SIGTERM ? 0 : 1;
        }) == 0);
}

TEST_CASE("a_hangup_ignored_by_nohup_stays_ignored") {
  CHECK(in_child([] {
          std::signal(SIGHUP, SIG_IGN);
          SignalWatch watch;
          raise_here(SIGHUP);
          return watch.stop_signal() ? 1 : 0;
        }) == 0);
}

TEST_CASE("a_write_beyond_the_file_size_limit_fails_and_does_not_kill") {
  const int status = in_child([] {
    SignalWatch watch;
    raise_here(SIGXFSZ);
    return 0;
  });
  CHECK(status == 0);
}

TEST_CASE("former_handlers_come_back_with_the_end_of_the_watch") {
  CHECK(in_child([] {
          static volatile std::sig_atomic_t seen = 0;
          std::signal(SIGTERM, [](int) { seen = 1; });
          { SignalWatch watch; }
          raise_here(SIGTERM);
          if (!seen) return 1;
          SignalWatch again;
          return again.stop_signal() ? 2 : 0;
        }) == 0);
}
