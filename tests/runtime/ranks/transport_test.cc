#include "ranks/transport.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/error.h"
#include "ranks.h"
#include "ranks/rendezvous.h"

using namespace holdfast;

namespace {

bool is_internet_connection(int fd) {
  int family = 0, listens = 1;
  socklen_t length = sizeof family;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0 || (family != AF_INET && family != AF_INET6)) {
    return false;
  }
  length = sizeof listens;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens == 0;
}

}  // namespace

TEST_CASE("a_connection_that_another_rank_closed_is_noticed_without_a_call_on_it") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int) {
        const auto store = join_store(place, "here", "", "", {.patience = std::chrono::seconds(20), .say = {}});
        Transport transport(place, store, c10::kCPU);
        if (transport.has_lost_connection()) return 5;
        (void)transport.exchange("x");
        if (place.rank == 1) ::_exit(0);
        for (int look = 0; look < 1000 && !transport.has_lost_connection(); ++look) {
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        return transport.has_lost_connection() ? 0 : 6;
      },
      std::chrono::seconds(40));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_connection_to_a_store_that_ended_is_an_error") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int) {
        const auto store = join_store(place, "here", "", "", {.patience = std::chrono::seconds(20), .say = {}});
        // A rank 0 that left while rank 1 still joins would be another error.
        if (place.rank == 1) store->set("joined", std::vector<std::uint8_t>{1});
        if (place.rank == 0) {
          while (!store->check({"joined"})) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          ::_exit(0);
        }
        try {
          while (true) (void)store->check({"there"});
        } catch (const std::exception&) {  // rank 0 is gone, and the store with it
        }
        try {
          const StoreConnection connection(*store, place.port);
        } catch (const Error& error) {
          return std::string(error.what()).find("is gone") != std::string::npos ? 0 : 5;
        }
        return 6;
      },
      std::chrono::seconds(15));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("connections_that_another_thread_opens_while_a_transport_connects_are_left_alone") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int) {
        const auto store = join_store(place, "here", "", "", {.patience = std::chrono::seconds(20), .say = {}});
        const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        if (::bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || ::listen(listener, 500) != 0)
          return 5;
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
        std::atomic<bool> is_ready{false};
        std::vector<int> own;
        std::thread other([&] {
          while (!is_ready && own.size() < 400) {
            own.push_back(::socket(AF_INET, SOCK_STREAM, 0));
            if (::connect(own.back(), reinterpret_cast<sockaddr*>(&address), length) != 0) return;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
        });
        Transport transport(place, store, c10::kCPU);
        is_ready = true;
        other.join();
        (void)transport.exchange("x");  // until the other rank is ready as well
        transport.interrupt();
        for (const int fd : own) {
          if (::send(fd, "x", 1, MSG_NOSIGNAL) != 1) return 6;
        }
        return own.size() > 1 ? 0 : 7;
      },
      std::chrono::seconds(40));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("a_reused_descriptor_of_a_closed_socket_is_left_alone") {
  const auto ended = ranks::run_processes(
      2,
      [](const RankEnvironment& place, int) {
        const auto store = join_store(place, "here", "", "", {.patience = std::chrono::seconds(20), .say = {}});
        Transport transport(place, store, c10::kCPU);
        (void)transport.exchange("x");
        // The program opens its own connection under each number that the transport had, as if after the transport
        // closed them.
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 5;
        int replaced = 0;
        for (int fd = 3; fd < 200; ++fd) {
          if (is_internet_connection(fd) && ::dup2(ends[0], fd) == fd) ++replaced;
        }
        transport.interrupt();
        const bool is_whole = ::send(ends[0], "x", 1, MSG_NOSIGNAL) == 1;
        ::_exit(is_whole && replaced > 0 ? 0 : 6);  // Gloo could not close its sockets normally
        return 0;
      },
      std::chrono::seconds(40));
  for (const auto& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}
