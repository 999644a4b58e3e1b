// Jobs that worker threads do ahead of time and whose results come out in the order in which they were pushed.
//
// push, pop, clear and size are for one thread, the owner's. A job holds what it needs, so the queue can be cleared
// while one is under way: its result is dropped when it ends. The destructor waits for the jobs under way, no others.
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
  /// Waits for the oldest job and gives its result, or throws what it threw. REQUIRES: size() > 0.
  Result pop();
  /// What pop() would give without waiting; null where it would wait, or throw.
  Result front_if_done();
  /// Forgets every job, done or not.
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

  std::deque<std::shared_ptr<Task>> in_order_;  // the owner's alone
  std::mutex mutex_;                            // guards all below, and every task's outcome
  std::condition_variable pushed_, finished_;
  std::deque<std::shared_ptr<Task>> waiting_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace holdfast
