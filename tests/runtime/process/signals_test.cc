#include "process/signals.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "catch.h"
#include "message_parts.h"

using holdfast::SignalWatch;

namespace {

// Runs `body` in a child, so that an uncaught signal ends only the child; returns the wait status.
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

TEST_CASE("if_there_is_nothing_to_save_a_signal_ends_the_process_with_a_message") {
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

TEST_CASE("the_first_interrupt_is_answered_once_and_by_one_rank_only") {
  for (const bool answers : {true, false}) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const int status = in_child([&] {
      ::dup2(ends[1], STDERR_FILENO);
      std::signal(SIGINT, SIG_DFL);
      SignalWatch watch(answers);
      raise_here(SIGTERM);
      raise_here(SIGINT);
      return watch.stop_signal() == SIGTERM ? 0 : 1;
    });
    ::close(ends[1]);
    char said[200] = "";
    const ssize_t got = ::read(ends[0], said, sizeof said);
    ::close(ends[0]);
    CHECK(status == 0);
    const std::string answer(said, static_cast<std::size_t>(got));
    CHECK(answer.empty() == !answers);
    CHECK(lines_of(answer) == (answers ? 1 : 0));
    if (answers) CHECK(lacking(answer, {"holdfast", "saving", "again"}) == "");
  }
}

TEST_CASE("further_stop_signals_are_ignored_once_a_stop_is_in_progress") {
  CHECK(in_child([] {
          std::signal(SIGINT, SIG_DFL);
          std::signal(SIGHUP, SIG_DFL);
          {
            SignalWatch watch;
            raise_here(SIGINT);
            watch.stop_is_under_way();
            raise_here(SIGINT);
          }
          for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGTERM, SIGINT}) raise_here(signal);
          SignalWatch next;  // of a program that starts another session anyway
          if (next.stop_signal()) return 1;
          raise_here(SIGTERM);
          return next.stop_signal() == SIGTERM ? 0 : 2;
        }) == 0);
}

TEST_CASE("a_program_that_continues_after_a_complete_run_can_be_stopped") {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const int status = in_child([&] {
      for (const int one : {SIGTERM, SIGINT, SIGHUP}) std::signal(one, SIG_DFL);
      SignalWatch watch;
      watch.release();
      raise_here(signal);
      return 0;
    });
    CAPTURE(signal);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
  }
}

TEST_CASE("a_broken_pipe_fails_the_write_and_ends_no_process_during_or_after_a_session") {
  CHECK(in_child([] {
          int ends[2];
          if (::pipe(ends) != 0) return 1;
          ::close(ends[0]);
          const auto fails = [&] { return ::write(ends[1], "x", 1) < 0 && errno == EPIPE; };
          {
            SignalWatch watch;
            if (!fails()) return 2;
          }
          return fails() ? 0 : 3;
        }) == 0);
}

TEST_CASE("handlers_that_a_program_set_for_broken_pipes_and_large_files_stay") {
  CHECK(in_child([] {
          static volatile std::sig_atomic_t seen = 0;
          std::signal(SIGPIPE, [](int) { seen = seen + 1; });
          std::signal(SIGXFSZ, [](int) { seen = seen + 1; });
          SignalWatch watch;
          raise_here(SIGPIPE);
          raise_here(SIGXFSZ);
          return seen == 2 ? 0 : 1;
        }) == 0);
}

TEST_CASE("programs_that_a_session_starts_inherit_nothing_of_its_signals") {
  const int status = in_child([] {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGHUP, SIG_DFL);
    SignalWatch watch;
    watch.stop_is_under_way();
    // The mask of ignored signals, in hexadecimal, must contain none of ours.
    return std::system("grep -q '^SigIgn:.*0000000$' /proc/self/status") == 0 ? 0 : 1;
  });
  CHECK(status == 0);
}

TEST_CASE("former_signal_handlers_are_restored_at_the_end_of_the_watch") {
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
