// Jobs that worker threads run ahead of time; the results are returned in the order in which the jobs were pushed.
//
// Only the owner's thread may call push, pop, clear and size. A job owns what it needs, so clear() may be called while
// a job runs: its result is then dropped. The destructor waits only for the jobs that are running.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace holdfast {

class PrefetchQueue {
 public:
  using Result = std::shared_ptr<void>;
  using Job = std::function<Result()>;

  explicit PrefetchQueue(int workers);
  ~PrefetchQueue();
  PrefetchQueue(const PrefetchQueue&) = delete;
  PrefetchQueue& operator=(const PrefetchQueue&) = delete;

  void push(Job job);
  /// Waits for the oldest job and returns its result, or throws what it threw. REQUIRES: size() > 0.
  Result pop();
  /// What pop() would return without waiting; null if it would wait or throw.
  Result front_if_done();
  /// Drops every job, done or not.
  void clear();
  std::size_t size() const { return in_order_.size(); }

 private:
  struct Task {
    Job job;
    Result result;
    std::exception_ptr error;
    bool done = false;
  };

  void work();
  void end();

  std::deque<std::shared_ptr<Task>> in_order_;  // used by the owner only
  std::mutex mutex_;                            // guards everything below and every task's outcome
  std::condition_variable pushed_, finished_;
  std::deque<std::shared_ptr<Task>> waiting_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace holdfast
