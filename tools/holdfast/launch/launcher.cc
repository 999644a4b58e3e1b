#include "launch/launcher.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <utility>

#include "launch/descendants.h"
#include "launch/system_error.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;
using namespace std::chrono_literals;

namespace {

constexpr auto kNever = Launcher::Clock::time_point::max();

bool on_terminal() { return ::isatty(0) == 1 || ::isatty(1) == 1 || ::isatty(2) == 1; }

}  // namespace

Launcher::Launcher(Plan plan, std::string folder)
    : plan_(std::move(plan)),
      progress_file_(folder + "/progress"),
      policy_(plan_.restarts),
      guard_(own_entry(progress_file_), folder),
      standard_out_(std::make_unique<Output>(STDOUT_FILENO)),
      standard_err_(same_place(STDOUT_FILENO, STDERR_FILENO) ? nullptr : std::make_unique<Output>(STDERR_FILENO)),
      out_(*standard_out_),
      err_(standard_err_ ? *standard_err_ : *standard_out_),
      shares_terminal_(plan_.world.size() == 1 && plan_.logs.empty() && on_terminal()),
      teardown_(plan_.grace) {}

Result<int> Launcher::run() {
  if (signals_.descriptor() < 0) return system_error("cannot watch for signals");
  // Orphans of ranks become children of this process, so they can be found when their rank has ended.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (!guard_.start()) return system_error("cannot start a process");
  Decision decision;
  for (int number = 0;; ++number) {
    const Status started = start_ranks(number);
    const StartOutcome outcome = look_after();
    if (!started.ok()) {
      if (exec_code_ == 0) {
        flush();
        return started;
      }
      say(started.message());
      decision.exit_code = exec_code_;
      break;
    }
    decision = policy_.after(outcome);
    if (outcome.first_failure) show_failure(outcome, decision);
    if (!decision.restart) break;
    if (stop_asked_ || !pause(decision.pause)) {
      say(fmt::format("stopped before the restart; run the same command again (exit code {})",
                      int{ExitCode::kRunAgain}));
      decision.exit_code = ExitCode::kRunAgain;
      break;
    }
  }
  flush();
  return decision.exit_code;
}

// Supervision

StartOutcome Launcher::look_after() {
  for (;;) {
    const auto now = Clock::now();
    if (const int signal = teardown_.due(now)) pass_on(signal, /*to_group=*/signal == SIGKILL);
    if (all_over() && nothing_left(now)) break;
    wait_for_something(teardown_.next().value_or(kNever), /*also_ranks=*/true);
  }
  // No process can write to the pipes any more, so they contain all that is left.
  for (Rank& rank : ranks_) {
    for (Stream* stream : {&rank.out, &rank.err}) {
      while (stream->pipe >= 0) {
        if (stream->to->full()) {
          wait_for_something(kNever, /*also_ranks=*/false);
        } else {
          read_from(*stream, /*at_end=*/true);
        }
      }
    }
  }
  outcome_.saved_step = saved_step();
  return outcome_;
}

void Launcher::wait_for_something(Clock::time_point until, bool also_ranks) {
  std::vector<pollfd> polled = {{signals_.descriptor(), POLLIN, 0}};
  for (Output* output : {standard_out_.get(), standard_err_.get()}) {
    if (output && output->pending()) polled.push_back({output->descriptor(), POLLOUT, 0});
  }
  std::vector<Stream*> streams;
  const std::size_t first = polled.size();
  if (also_ranks) {
    for (Rank& rank : ranks_) {
      for (Stream* stream : {&rank.out, &rank.err}) {
        // While the reader of launch's output is slow, the ranks wait, as they would if they wrote to it directly.
        if (stream->pipe < 0 || stream->to->full()) continue;
        streams.push_back(stream);
        polled.push_back({stream->pipe, POLLIN, 0});
      }
    }
    // The kernel notifies launch of an orphan only if the orphan's parent was launch's child.
    if (all_over()) until = std::min(until, Clock::now() + 50ms);
  }
  int timeout = -1;
  if (until != kNever) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    timeout = static_cast<int>(std::clamp<long long>(left, 0, 60'000));
  }
  if (::poll(polled.data(), polled.size(), timeout) > 0) {
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (polled[first + i].revents != 0) read_from(*streams[i], /*at_end=*/false);
    }
  }
  handle_signals();
  reap();
  for (Output* output : {standard_out_.get(), standard_err_.get()}) {
    if (!output) continue;
    const int before = output->error();
    output->write_some();
    if (before == 0 && output->error() != 0) reader_left(*output);
  }
}

bool Launcher::pause(std::chrono::milliseconds time) {
  const auto end = Clock::now() + time;
  while (!stop_asked_ && Clock::now() < end) wait_for_something(end, /*also_ranks=*/false);
  return !stop_asked_;
}

void Launcher::flush() {
  // A second stop request does not wait for a reader that does not read.
  stop_asked_ = false;
  const auto pending = [&] { return out_.pending() || err_.pending(); };
  out_.write_some();
  err_.write_some();
  while (pending() && !stop_asked_) wait_for_something(kNever, /*also_ranks=*/false);
}

// Signals

void Launcher::handle_signals() {
  while (const auto signal = signals_.take()) {
    if (signal->number == SIGCHLD) continue;
    if (signal->number == SIGTSTP) {
      stand_still();
      continue;
    }
    if (signal->number == SIGCONT) {
      pass_on(SIGCONT, /*to_group=*/true);
      continue;
    }
    if (Signals::stops(signal->number)) {
      // At the second SIGINT a session ends without a save. A rank that does not react must not make the user wait.
      if (signal->number == SIGINT && std::exchange(interrupted_, true)) teardown_.begin(Clock::now());
      stop_asked_ = true;
      if (!outcome_.first_failure) outcome_.told_to_stop = true;
    }
    // A second SIGINT ends a session at once, so one Ctrl-C must not arrive twice.
    const bool has_it = shares_terminal_ && signal->from_terminal;
    if (!has_it) pass_on(signal->number);
  }
}

void Launcher::pass_on(int signal, bool to_group) {
  for (Rank& rank : ranks_) {
    if (rank.pid < 0 || rank.over) continue;
    if (Signals::stops(signal)) rank.told_to_stop = true;
    // A rank stops its own children; only SIGKILL and suspension apply to the whole group.
    const pid_t whom = to_group && !shares_terminal_ ? -rank.pid : rank.pid;
    ::kill(whom, signal);
    if (signal == SIGTERM) ::kill(whom, SIGCONT);  // a suspended process would react to it only later
  }
}

void Launcher::stand_still() {
  pass_on(SIGSTOP, /*to_group=*/true);
  const auto begin = Clock::now();
  ::raise(SIGSTOP);
  teardown_.delay(Clock::now() - begin);
  if (leftovers_until_) *leftovers_until_ += Clock::now() - begin;
  pass_on(SIGCONT, /*to_group=*/true);
}

// Ends

void Launcher::reap() {
  std::vector<std::pair<Rank*, RankEnd>> ends;
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) break;
    const auto rank = std::find_if(ranks_.begin(), ranks_.end(),
                                   [&](const Rank& rank) { return !rank.over && rank.pid == info.si_pid; });
    if (rank != ranks_.end()) {
      rank->over = true;
      // The number of the rank's group cannot be reused before launch has waited for the rank. A failed rank's children
      // would keep its connections open and its peers waiting; those of a rank that was asked to stop may still be
      // saving.
      if (!shares_terminal_) ::kill(-rank->pid, rank->told_to_stop ? SIGTERM : SIGKILL);
      const bool exited = info.si_code == CLD_EXITED;
      ends.push_back({&*rank, {rank->number, exited ? info.si_status : 0, exited ? 0 : info.si_status}});
    }
    ::waitpid(info.si_pid, nullptr, 0);
    if (info.si_pid == guard_.pid()) {
      guard_.is_over();
      guard_.start();
    }
  }
  // Among ends that were seen together, one by a signal is the likelier cause of the others.
  std::stable_sort(ends.begin(), ends.end(),
                   [](const auto& a, const auto& b) { return (a.second.signal != 0) > (b.second.signal != 0); });
  for (const auto& [rank, end] : ends) note_end(end);
}

void Launcher::note_end(const RankEnd& end) {
  if (!end.failed()) {
    outcome_.stopped_early |= end.code == ExitCode::kRunAgain;
    return;
  }
  if (!outcome_.first_failure) outcome_.first_failure = end;
  teardown_.begin(Clock::now());
}

bool Launcher::all_over() const {
  return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.over || rank.pid < 0; });
}

bool Launcher::nothing_left(Clock::time_point now) {
  auto left = living_children();
  std::erase(left, guard_.pid());
  if (left.empty()) return true;
  if (!leftovers_until_) {
    const bool told = std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.told_to_stop; });
    leftovers_until_ = told ? now + plan_.grace : now;
  }
  for (const pid_t pid : left) {
    if (now >= *leftovers_until_) {
      ::kill(pid, SIGKILL);
    } else if (leftovers_told_.insert(pid).second) {
      ::kill(pid, SIGTERM);
    }
  }
  return false;
}

}  // namespace holdfast::tools
