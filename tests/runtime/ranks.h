// Several ranks on this host, each a forked child with a group of its own, and what became of them.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/group.h"

namespace ranks {

using Clock = std::chrono::steady_clock;

struct Ended {
  int code = -1;  // the exit code, or minus the signal
  std::string text;
  double seconds = 0;  // since the start of all
};

inline constexpr int kStopped = 42;  // the body threw a RankFault

/// Runs `body` on `count` ranks. It returns a text; one that throws ends with the exception's, and kStopped for a
/// RankFault. What is not over after `patience` is killed, and shows as -SIGKILL.
inline std::vector<Ended> run(int count, const std::function<std::string(holdfast::Group&)>& body,
                              std::chrono::seconds patience = std::chrono::seconds(60),
                              const std::function<void(const std::vector<pid_t>&)>& meanwhile = {}) {
  const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
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
      std::string text;
      int code = 0;
      try {
        holdfast::Group group(place, c10::kCPU, {.join_within = std::chrono::seconds(30)});
        try {
          text = body(group);
          group.close();
        } catch (const std::exception& error) {
          if (!group.fault()) group.fail("rank " + std::to_string(rank) + " threw: " + error.what());
          throw;
        }
      } catch (const holdfast::RankFault& fault) {
        text = fault.what();
        code = kStopped;
      } catch (const std::exception& error) {
        text = error.what();
        code = 1;
      }
      (void)!::write(ends[1], text.data(), text.size());
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
      all[rank].seconds = std::chrono::duration<double>(Clock::now() - begin).count();
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

}  // namespace ranks
