#include "launch/launcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "launch/descendants.h"
#include "launch/program_hint.h"
#include "launch/rank_process.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::Result;
using storage::Status;
using storage::StatusCode;
using namespace std::chrono_literals;

namespace {

constexpr auto kNever = Launcher::Clock::time_point::max();

Status system_error(const std::string& what) { return {StatusCode::unreadable, what + ": " + std::strerror(errno)}; }

/// A descriptor that is closed at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void reset(int number) {
    close();
    number_ = number;
  }
  int get() const { return number_; }

 private:
  void close() {
    if (number_ >= 0) ::close(number_);
  }
  int number_;
};

const char* hint_for(int error) { return error == EMFILE ? " (ulimit -n says how many files may be open here)" : ""; }

/// A socket that listens on a free port of 127.0.0.1; -1 with errno if that fails.
int listen_here(int& port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  // Its connections inherit the option; otherwise rank 0 could not listen there again for its program's next session.
  const int reuse = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(socket, generic, length) != 0 || ::listen(socket, SOMAXCONN) != 0 ||
      ::getsockname(socket, generic, &length) != 0) {
    ::close(socket);
    return -1;
  }
  port = ntohs(address.sin_port);
  return socket;
}

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
      say(fmt::format("told to stop before that; run the same command again (exit code {})", int{ExitCode::kRunAgain}));
      decision.exit_code = ExitCode::kRunAgain;
      break;
    }
  }
  flush();
  return decision.exit_code;
}

// Starting

Status Launcher::start_ranks(int number) {
  ranks_.clear();
  teardown_ = Teardown(plan_.grace);
  outcome_ = {};
  leftovers_until_.reset();
  leftovers_told_.clear();
  progress_owner_ = nullptr;
  ranks_.resize(static_cast<std::size_t>(plan_.world.ranks_here));

  World world = plan_.world;
  // Closed here once rank 0 has it: ranks that connect after rank 0 is gone must be refused instead of waiting.
  Descriptor listening;
  if (plan_.own_port) {
    listening.reset(listen_here(world.port));
    if (listening.get() < 0) return system_error("cannot listen on a port of 127.0.0.1");
  }
  const StartFacts facts{number, progress_file_, listening.get()};
  for (int local = 0; local < world.ranks_here; ++local) {
    const Status started = start_rank(world, local, facts);
    if (!started.ok()) {
      pass_on(SIGKILL, /*to_group=*/true);
      return started;
    }
  }
  return {};
}

Status Launcher::start_rank(const World& world, int local, const StartFacts& facts) {
  Rank& rank = ranks_[static_cast<std::size_t>(local)];
  rank.number = world.rank_of(local);
  const bool alone = world.size() == 1;

  RankProcess process;
  process.program = plan_.program;
  process.environment = environment_of(world, local, facts);
  process.signal_mask = signals_.former_mask();
  process.own_group = !shares_terminal_;
  if (rank.number == 0) process.listening = facts.listening;

  // At most one rank reads standard input. None reads a terminal because it would stop a rank outside its foreground
  // group.
  Descriptor nothing, log, out, err;
  if (!(shares_terminal_ || (local == 0 && ::isatty(STDIN_FILENO) == 0))) {
    nothing.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    process.in = nothing.get();
  }
  if (!plan_.logs.empty()) {
    rank.log = fmt::format("{}/rank-{}.log", plan_.logs, rank.number);
    log.reset(::open(rank.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (log.get() < 0) return system_error("cannot write the log " + in_quotes(rank.log));
    const std::string head = fmt::format("---- start {} of rank {} at {}\n", facts.number, rank.number, time_text());
    [[maybe_unused]] const ssize_t written = ::write(log.get(), head.data(), head.size());
    rank.log_begin = ::lseek(log.get(), 0, SEEK_END);
    process.out = process.err = log.get();
  } else {
    const std::string prefix = alone ? "" : fmt::format("[{}] ", rank.number);
    const auto piped = [&](Stream& stream, Output& to, Descriptor& end, int& given) {
      if (alone && to.is_terminal()) return true;  // inherited unchanged
      int ends[2];
      if (::pipe2(ends, O_CLOEXEC) != 0) return false;
      ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
      stream.pipe = ends[0];
      stream.lines.emplace(prefix, to.is_terminal());
      stream.to = &to;
      end.reset(ends[1]);
      given = ends[1];
      return true;
    };
    if (!piped(rank.out, out_, out, process.out) || !piped(rank.err, err_, err, process.err)) {
      return system_error(fmt::format("cannot make a pipe for rank {}{}", rank.number, hint_for(errno)));
    }
  }

  const StartedRank started = start(process);
  if (started.error == 0) {
    rank.pid = started.pid;
    return {};
  }
  rank.over = true;
  if (started.error == EAGAIN || started.error == ENOMEM || started.error == EMFILE || started.error == ENFILE) {
    errno = started.error;
    return system_error(fmt::format("cannot start the process of rank {}{}", rank.number, hint_for(started.error)));
  }
  exec_code_ = started.error == ENOENT || started.error == ENOTDIR ? kNotFound : kNotExecutable;
  return {StatusCode::not_found, why_not_started(plan_.program.front(), started.error)};
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

// Output

void Launcher::read_from(Stream& stream, bool at_end) {
  static char buffer[1 << 16];
  const ssize_t got = ::read(stream.pipe, buffer, sizeof buffer);
  if (got < 0 && (errno == EINTR || (errno == EAGAIN && !at_end))) return;
  std::string lines;
  if (got > 0) {
    stream.lines->take({buffer, static_cast<std::size_t>(got)}, lines, Clock::now());
  } else {
    stream.lines->end(lines);
    ::close(stream.pipe);
    stream.pipe = -1;
  }
  // One progress line at the terminal's bottom: that of the first rank of this node.
  const bool first = &stream == &ranks_.front().out || &stream == &ranks_.front().err;
  if (first && stream.to->is_terminal()) {
    std::string progress = stream.lines->progress();
    if (!progress.empty() || progress_owner_ == &stream) {
      progress_owner_ = progress.empty() ? nullptr : &stream;
      stream.to->show_progress(std::move(progress));
    }
  }
  stream.to->add(lines);
}

void Launcher::reader_left(const Output& output) {
  const char* name = &output == &out_ ? "standard output" : "standard error";
  if (output.error() != EPIPE) {
    say(fmt::format("cannot write to {}: {}; what ranks write there is lost", name, std::strerror(output.error())));
    return;
  }
  // Like a rank without launch: losing a terminal or a pipe must not end the training.
  say(fmt::format("the reader of {} is gone; the ranks continue, and what they write there is dropped", name));
}

void Launcher::say(const std::string& sentence) { err_.add_own_line("holdfast launch: " + sentence); }

// The report

std::optional<std::uint64_t> Launcher::saved_step() const {
  std::ifstream file(progress_file_);
  std::uint64_t step = 0;
  return file >> step ? std::optional(step) : std::nullopt;
}

std::vector<std::string> Launcher::last_lines(const Rank& rank) const {
  if (rank.err.lines) return {rank.err.lines->last_lines().begin(), rank.err.lines->last_lines().end()};
  if (rank.log.empty()) return {};
  std::ifstream file(rank.log, std::ios::binary);
  file.seekg(0, std::ios::end);
  const long end = static_cast<long>(file.tellg());
  const long begin = std::max(rank.log_begin, end - (64 << 10));
  std::string bytes(static_cast<std::size_t>(std::max(0L, end - begin)), '\0');
  file.seekg(begin);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  LinePrefixer lines("", false);
  std::string ignored;
  lines.take(bytes, ignored, {});
  lines.end(ignored);
  return {lines.last_lines().begin(), lines.last_lines().end()};
}

void Launcher::show_failure(const StartOutcome& outcome, const Decision& decision) {
  const RankEnd& failure = *outcome.first_failure;
  const Rank& rank =
      *std::find_if(ranks_.begin(), ranks_.end(), [&](const Rank& rank) { return rank.number == failure.rank; });
  const auto lines = last_lines(rank);
  const bool alone = plan_.world.size() == 1;
  // The lines of the only rank are directly above.
  if (!lines.empty() && !(alone && rank.log.empty())) {
    say(fmt::format("the last {} of rank {} {}:", lines.size() == 1 ? "line" : plural(lines.size(), "line"),
                    failure.rank, rank.log.empty() ? "on standard error" : "in " + printable(rank.log)));
    std::string text;
    for (const std::string& line : lines) text += fmt::format("[{}] {}\n", failure.rank, line);
    err_.add(text);
  }
  std::string sentence = alone ? "the program failed: " : fmt::format("rank {} failed first: ", failure.rank);
  sentence += failure.text();
  if (failure.signal == SIGKILL && !outcome.told_to_stop)
    sentence += " (from outside; the kernel does so when memory runs out)";
  if (!decision.reason.empty()) sentence += "; " + decision.reason;
  say(sentence);
}

}  // namespace holdfast::tools
