// Starting the ranks: their pipes, logs and the socket of the rendezvous.
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "launch/launcher.h"
#include "launch/program_hint.h"
#include "launch/rank_process.h"
#include "launch/system_error.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::Status;
using storage::StatusCode;

namespace {

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

const char* hint_for(int error) { return error == EMFILE ? " (ulimit -n shows how many files may be open here)" : ""; }

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

}  // namespace

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

}  // namespace holdfast::tools
