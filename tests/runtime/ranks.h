// Several ranks on this host, each a forked child with its own group or session, and how each ended.
#pragma once

#include <arpa/inet.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <atomic>
#include <boost/filesystem/directory.hpp>
#include <boost/filesystem/operations.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/ranks/group.h"
#include "ranks/group_control.h"
#include "session/earlier_sessions.h"

namespace ranks {

using Clock = std::chrono::steady_clock;

struct Ended {
  int code = -1;  // the exit code, or minus the signal
  std::string text;
  double seconds = 0;  // since note_fact(), or since the start of all ranks if it was not called
};

/// The start of the event that the others must notice, in nanoseconds of Clock; 0: not yet. Shared by all ranks.
inline std::atomic<std::int64_t>& fact() {
  static auto* const shared = static_cast<std::atomic<std::int64_t>*>(
      ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  return *shared;
}

/// Called before the event that the other ranks must notice; the first call counts.
inline void note_fact() {
  std::int64_t nobody = 0;
  fact().compare_exchange_strong(nobody, Clock::now().time_since_epoch().count());
}

/// A short time limit, so that tests of stalled ranks are fast.
inline constexpr std::chrono::seconds kSilence{3};

inline constexpr int kStopped = 42;  // the body threw a RankFault

/// Runs `act` in `count` processes. Each writes a text to `pipe` and ends with the return value of `act`. A process
/// that has not ended after `patience` is killed, and its code is -SIGKILL.
inline std::vector<Ended> run_processes(int count,
                                        const std::function<int(const holdfast::RankEnvironment& place, int pipe)>& act,
                                        std::chrono::seconds patience,
                                        const std::function<void(const std::vector<pid_t>&)>& meanwhile = {}) {
  const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
  const int reuse = 1;  // for a second session of the same ranks
  REQUIRE(::setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(listening, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::listen(listening, 64) == 0);
  REQUIRE(::getsockname(listening, reinterpret_cast<sockaddr*>(&address), &length) == 0);

  std::vector<pid_t> pids;
  std::vector<int> pipes;
  const auto begin = Clock::now();
  fact() = 0;
  std::fflush(nullptr);  // otherwise every child would print it again
  for (int rank = 0; rank < count; ++rank) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      for (const int other : pipes) ::close(other);
      ::close(ends[0]);
      if (rank != 0) ::close(listening);
      holdfast::RankEnvironment place;
      place.rank = place.local_rank = rank;
      place.world_size = place.local_world_size = count;
      place.port = ntohs(address.sin_port);
      if (rank == 0) place.listen_fd = listening;
      int code = EX_SOFTWARE;
      try {
        code = act(place, ends[1]);
      } catch (const std::exception& error) {  // otherwise the test program would continue in this process as well
        (void)!::write(ends[1], error.what(), std::strlen(error.what()));
      }
      ::_exit(code);
    }
    ::close(ends[1]);
    pids.push_back(pid);
    pipes.push_back(ends[0]);
  }
  ::close(listening);
  if (meanwhile) meanwhile(pids);

  std::vector<Ended> all(static_cast<std::size_t>(count));
  int left = count;
  std::vector<bool> over(all.size());
  while (left > 0) {
    const bool late = Clock::now() - begin > patience;
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      if (over[rank]) continue;
      if (late) ::kill(pids[rank], SIGKILL);
      int status = 0;
      if (::waitpid(pids[rank], &status, late ? 0 : WNOHANG) != pids[rank]) continue;
      over[rank] = true;
      --left;
      const auto since = fact() == 0 ? begin : Clock::time_point(Clock::duration(fact()));
      all[rank].seconds = std::chrono::duration<double>(Clock::now() - since).count();
      all[rank].code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
      char buffer[8192];
      for (ssize_t got = 0; (got = ::read(pipes[rank], buffer, sizeof buffer)) > 0;) {
        all[rank].text.append(buffer, static_cast<std::size_t>(got));
      }
      ::close(pipes[rank]);
    }
    ::usleep(2000);
  }
  return all;
}

/// Writes the result of `body`, or the message of the Error that it throws, to `pipe`.
inline void say(int pipe, const std::function<std::string()>& body) {
  std::string text;
  try {
    text = body();
  } catch (const holdfast::Error& error) {
    text = error.what();
  }
  (void)!::write(pipe, text.data(), text.size());
}

/// Whether two ranks can have a GPU each, according to the driver's files: after a query to CUDA, the forked ranks
/// could not use it. For the same reason a case that uses CUDA in this process must not run before a case that calls
/// this.
inline bool are_on_two_gpus() {
  namespace fs = boost::filesystem;
  for (const auto& file : fs::directory_iterator("/proc/self/fd")) {
    boost::system::error_code gone;
    if (fs::read_symlink(file.path(), gone).string().starts_with("/dev/nvidia")) {
      FAIL("this process uses CUDA already: run each case in a process of its own, as ctest does");
    }
  }
  if (fs::exists("/dev/nvidia1")) return true;
  WARN("skipped: it needs two GPUs");
  return false;
}

/// Runs `body` on `count` ranks, each with a group, on GPUs if `device` is CUDA. `body` returns the rank's text. A rank
/// whose body throws ends with the exception's text, and with kStopped for a RankFault.
inline std::vector<Ended> run(int count, const std::function<std::string(holdfast::Group&)>& body,
                              std::chrono::seconds patience = std::chrono::seconds(60),
                              c10::DeviceType device = c10::kCPU) {
  const auto act = [&body, device](const holdfast::RankEnvironment& place, int pipe) {
    std::string text;
    int code = 0;
    try {
      const c10::Device mine(device, static_cast<c10::DeviceIndex>(device == c10::kCPU ? -1 : place.local_rank));
      if (mine.is_cuda()) c10::impl::VirtualGuardImpl(device).setDevice(mine);
      holdfast::Group group(place, mine, {.join_within = std::chrono::seconds(30), .silence = kSilence});
      try {
        text = body(group);
        holdfast::detail::GroupControl(group).close();
      } catch (const std::exception& error) {
        holdfast::detail::GroupControl control(group);
        if (!control.fault()) control.fail("rank " + std::to_string(place.rank) + " threw: " + error.what());
        throw;
      }
    } catch (const holdfast::RankFault& fault) {
      text = fault.what();
      code = kStopped;
    } catch (const std::exception& error) {
      text = error.what();
      code = 1;
    }
    (void)!::write(pipe, text.data(), text.size());
    return code;
  };
  return run_processes(count, act, patience);
}

/// Runs `body`, a program with a session, on `count` ranks. A rank's text is all that it prints to either stream. An
/// exception that leaves `body` is not caught, as in main().
inline std::vector<Ended> run_sessions(int count, const std::function<int()>& body,
                                       std::chrono::seconds patience = std::chrono::seconds(60),
                                       const std::function<void(const std::vector<pid_t>&)>& meanwhile = {}) {
  const auto act = [&body](const holdfast::RankEnvironment& place, int pipe) {
    ::dup2(pipe, STDOUT_FILENO);
    ::dup2(pipe, STDERR_FILENO);
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    const std::pair<const char*, int> variables[] = {{"RANK", place.rank},
                                                     {"WORLD_SIZE", place.world_size},
                                                     {"LOCAL_RANK", place.local_rank},
                                                     {"LOCAL_WORLD_SIZE", place.local_world_size},
                                                     {"MASTER_PORT", place.port},
                                                     {"HOLDFAST_LISTEN_FD", place.listen_fd.value_or(-1)}};
    for (const auto& [name, value] : variables) ::setenv(name, std::to_string(value).c_str(), 1);
    if (!place.listen_fd) ::unsetenv("HOLDFAST_LISTEN_FD");
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("HOLDFAST_LAUNCH", "1", 1);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::setenv("HOLDFAST_LAUNCH_THREADS", "1", 1);
    ::setenv("HOLDFAST_SILENCE", "3s", 0);
    // In this thread the test's own frames would catch what main()'s caller does not.
    holdfast::earlier_sessions() = {};  // those of the test's own process
    int code = 0;
    std::thread([&] { code = body(); }).join();
    std::fflush(stdout);
    return code;
  };
  return run_processes(count, act, patience, meanwhile);
}

}  // namespace ranks
