#include "holdfast/storage/parallel.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "start_thread.h"

namespace holdfast::storage {
namespace {

// Short enough for a string without an allocation.
constexpr const char* kNoMemory = "no memory";

}  // namespace

int thread_count() { return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8); }

Status in_parallel(std::size_t count, int threads, const std::function<Status(std::size_t)>& job) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t failed_at = count;
  Status failure;
  const auto work = [&] {
    for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      Status status;
      try {
        status = job(i);
      } catch (const std::bad_alloc&) {  // an exception that leaves the thread's function ends the process
        status = Status(StatusCode::unreadable, kNoMemory);
      }
      if (status) continue;
      next.store(count);
      const std::lock_guard lock(mutex);
      if (i < failed_at) {
        failed_at = i;
        failure = std::move(status);
      }
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads));  // an exception while a thread runs would end the process
  for (std::size_t i = 1; i < std::min(count, static_cast<std::size_t>(threads)); ++i) {
    others.push_back(start_thread(work));
    if (!others.back().joinable()) break;
  }
  work();
  for (std::thread& other : others) {
    if (other.joinable()) other.join();
  }
  return failure;
}

}  // namespace holdfast::storage
