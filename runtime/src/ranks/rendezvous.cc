#include "ranks/rendezvous.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/process.h"
#include "holdfast/storage/text/units.h"
#include "logging/torch_warnings.h"
#include "process/detached_task.h"
#include "process/host_name.h"
#include "process/signals.h"
#include "start_thread.h"

namespace holdfast {
namespace {

using std::chrono::milliseconds;
using storage::StatusCode;
using Clock = std::chrono::steady_clock;

// The ranks without a key in the store.
std::vector<int> absent(c10d::Store& store, const std::string& key, int world_size) {
  std::vector<int> missing;
  for (int rank = 0; rank < world_size; ++rank) {
    if (!store.check({key + "/" + std::to_string(rank)})) missing.push_back(rank);
  }
  return missing;
}

constexpr milliseconds kLook{20};

std::string whole_seconds(milliseconds duration) {
  return storage::format_duration(std::chrono::floor<std::chrono::seconds>(duration));
}

// A store that ends so soon after a rank connected to it belonged to an earlier start, whose rank 0 was leaving.
constexpr milliseconds kEarlierStart{5000};

// The store belonged to an earlier start and is gone: there may be a new one.
struct EarlierStore {};

// How much later than its own limit c10d may report why it has no store.
constexpr milliseconds kAnswer{2000};

// c10d itself waits without limit for the first answer of the listening program, which may not be a store.
c10::intrusive_ptr<c10d::Store> open_store(const std::string& address, const c10d::TCPStoreOptions& tcp) {
  auto store = run_detached("to connect to the other ranks",
                            [address, tcp] { return c10::make_intrusive<c10d::TCPStore>(address, tcp); });
  if (store.wait_for(tcp.timeout + kAnswer) == std::future_status::ready) return store.get();
  throw std::runtime_error("the program that listens there does not answer and may be an unrelated one");
}

// Calls `say` once after a time, unless it is destroyed before.
class Notice {
 public:
  Notice(milliseconds after, std::function<void()> say)
      : thread_(start_thread("to print that this rank waits", [this, after, say = std::move(say)] {
          std::unique_lock lock(mutex_);
          if (!changed_.wait_for(lock, after, [&] { return over_; })) say();
        })) {}
  ~Notice() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Notice(const Notice&) = delete;
  Notice& operator=(const Notice&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

// Checks that this process inherited the launcher's socket: programs in between often close unknown descriptors.
void require_listening(const RankEnvironment& ranks) {
  int listens = 0;
  socklen_t length = sizeof listens;
  sockaddr_in own{};
  socklen_t own_length = sizeof own;
  if (::getsockopt(*ranks.listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0 &&
      ::getsockname(*ranks.listen_fd, reinterpret_cast<sockaddr*>(&own), &own_length) == 0 &&
      ntohs(own.sin_port) == ranks.port) {
    return;
  }
  throw Error(StatusCode::unreadable,
              fmt::format("rank 0 did not get the socket that holdfast launch opened for it (descriptor {}): a program "
                          "between the two closes descriptors, as Python's subprocess does without close_fds=False; "
                          "let it pass them on, or give launch --rendezvous 127.0.0.1:PORT with a free port",
                          *ranks.listen_fd));
}

c10::intrusive_ptr<c10d::Store> connect_store(const RankEnvironment& ranks, int rendezvous, const JoinOptions& options,
                                              milliseconds left) {
  c10d::TCPStoreOptions tcp;
  tcp.port = ranks.port;
  tcp.isServer = ranks.rank == 0 && !ranks.launcher_has_store;
  tcp.waitWorkers = false;
  tcp.timeout = left;
  if (tcp.isServer && ranks.listen_fd && rendezvous == 0) {  // afterwards it is closed
    require_listening(ranks);
    tcp.masterListenFd = ranks.listen_fd;
    ::fcntl(*ranks.listen_fd, F_SETFD, FD_CLOEXEC);  // programs that this one starts do not inherit it
  }
  const Notice notice(options.say_waiting_after, [&] {
    if (ranks.local_rank != 0) return;  // one line from each host
    const std::string what = tcp.isServer               ? "cannot connect to its own address (MASTER_ADDR)"
                             : ranks.launcher_has_store ? "waits for the launcher to listen"
                                                        : "waits for rank 0 to listen";
    std::fprintf(stderr, "holdfast: rank %d %s at %s:%d; it gives up after %s\n", ranks.rank, what.c_str(),
                 ranks.address.c_str(), ranks.port, whole_seconds(left).c_str());
  });
  try {
    // The prefix separates this session from earlier ones of these processes in a launcher's store.
    return c10::make_intrusive<c10d::PrefixStore>(fmt::format("holdfast/{}/{}", ranks.attempt, rendezvous),
                                                  open_store(ranks.address, tcp));
  } catch (const std::exception& error) {
    const std::string why = error.what();
    throw Error(
        StatusCode::unreadable,
        tcp.isServer && why.find("listen") != std::string::npos
            ? fmt::format("rank 0 cannot listen on port {}: {}; {}", ranks.port, why.substr(0, why.find('\n')),
                          ranks.launcher == "holdfast launch" ? "give launch --rendezvous HOST:PORT with a free port"
                                                              : "set MASTER_PORT to a free one")
            : fmt::format("rank {} cannot reach rank 0 at {}:{} ({}): is rank 0 started, and does MASTER_ADDR "
                          "name its host?",
                          ranks.rank, ranks.address, ranks.port, why.substr(0, why.find('\n'))));
  }
}

// Ends the others' wait with the reason.
[[noreturn]] void refuse(c10d::Store& store, const std::string& text) {
  store.set("refused", text);
  throw Error(StatusCode::invalid, text);
}

// Two processes of the same rank, or with different numbers of ranks, would wait for each other forever.
void introduce(c10d::Store& store, const RankEnvironment& ranks, const std::string& who) {
  using Bytes = std::vector<std::uint8_t>;
  const auto first = [&](const std::string& key, const std::string& mine) {
    const auto there = store.compareSet(key, Bytes(), Bytes(mine.begin(), mine.end()));
    return std::string(there.begin(), there.end());
  };
  const std::string mine = fmt::format("{} ({})", ranks.world_size, who);
  const std::string count = first("world", mine);
  if (count.substr(0, count.find(' ')) != std::to_string(ranks.world_size)) {
    refuse(store, fmt::format("the ranks were started with different numbers of ranks: {} and {}; give all hosts the "
                              "same --nnodes and --nproc (or WORLD_SIZE)",
                              count, mine));
  }
  const std::string rank = first(fmt::format("here/{}", ranks.rank), who);
  if (rank == who) return;
  for (const auto until = Clock::now() + kEarlierStart; Clock::now() < until;) {
    std::this_thread::sleep_for(kLook);
    try {
      (void)store.check({"world"});
    } catch (const std::exception&) {
      throw EarlierStore();
    }
  }
  refuse(store, fmt::format("two processes claim to be rank {}: {} and {}; give each its own (launch --node-rank on "
                            "each host, or RANK)",
                            ranks.rank, rank, who));
}

void wait_for_all(c10d::Store& store, const RankEnvironment& ranks, const std::string& key, const JoinOptions& options,
                  Clock::time_point begin) {
  for (bool said = false;;) {
    if (store.check({"refused"})) {
      const auto text = store.get("refused");
      // The process that holds the store must not end before the others have read the reason.
      if (ranks.rank == 0) std::this_thread::sleep_for(10 * kLook);
      throw Error(StatusCode::invalid, std::string(text.begin(), text.end()));
    }
    const auto missing = absent(store, key, ranks.world_size);
    if (missing.empty()) return;
    const auto waited = Clock::now() - begin;
    if (waited > options.patience) {
      throw Error(StatusCode::unreadable,
                  fmt::format("{} of {} ranks did not arrive within {}: {}; rank {} waited at {}:{}", missing.size(),
                              ranks.world_size, whole_seconds(options.patience), fmt::join(missing, ", "), ranks.rank,
                              ranks.address, ranks.port));
    }
    if (ranks.rank == 0 && !said && waited > options.say_waiting_after) {
      said = true;
      options.say(fmt::format("rank 0 waits at {}:{} for {} of {} ranks, at most {}: {}", ranks.address, ranks.port,
                              missing.size(), ranks.world_size, whole_seconds(options.patience),
                              fmt::join(missing, ", ")));
    }
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace

c10::intrusive_ptr<c10d::Store> join_store(const RankEnvironment& ranks, const std::string& key,
                                           const std::string& greeting, const std::string& who,
                                           const JoinOptions& options) {
  // Gloo and the store may write to closed connections and assume that this does not end the process, as in Python.
  survive_broken_pipes();
  leave_out_words_of_c10d();  // the group reports a broken connection once
  static std::atomic<int> earlier{0};
  const int rendezvous = earlier++;  // this process's first is 0
  const auto begin = Clock::now();
  for (;;) {
    const auto left = options.patience - std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
    const auto store = connect_store(ranks, rendezvous, options, std::max(left, milliseconds(1)));
    try {
      if (!ranks.launcher_has_store) introduce(*store, ranks, who);
      store->set(key + "/" + std::to_string(ranks.rank), greeting);
      wait_for_all(*store, ranks, key, options, begin);
      return store;
    } catch (const Error&) {
      throw;
    } catch (const EarlierStore&) {
    } catch (const std::exception&) {
      // It may have been the earlier session's store, whose rank 0 was just leaving.
      if (rendezvous == 0 || left < milliseconds(0)) {
        throw Error(StatusCode::unreadable,
                    fmt::format("rank 0 at {}:{} ended while rank {} waited for the other ranks", ranks.address,
                                ranks.port, ranks.rank));
      }
    }
    std::this_thread::sleep_for(kLook);
  }
}

void find_place_on_host(RankEnvironment& ranks, const JoinOptions& options) {
  ranks.local_known = true;
  if (ranks.world_size == 1) return;
  const std::string mine = host_name() + " " + storage::boot_id();
  const auto store = join_store(ranks, "host", mine, fmt::format("pid {} on {}", ::getpid(), host_name()), options);
  ranks.local_rank = ranks.local_world_size = 0;
  for (int rank = 0; rank < ranks.world_size; ++rank) {
    const auto bytes = store->get("host/" + std::to_string(rank));
    if (std::string(bytes.begin(), bytes.end()) != mine) continue;
    ++ranks.local_world_size;
    if (rank < ranks.rank) ++ranks.local_rank;
  }
  leave_store(*store, ranks, kLeavePatience);
}

void leave_store(c10d::Store& store, const RankEnvironment& ranks, milliseconds patience) {
  store.set("left/" + std::to_string(ranks.rank), std::string());
  if (ranks.rank != 0 || ranks.launcher_has_store) return;
  const auto until = Clock::now() + patience;
  while (!absent(store, "left", ranks.world_size).empty() && Clock::now() < until) std::this_thread::sleep_for(kLook);
}

}  // namespace holdfast
