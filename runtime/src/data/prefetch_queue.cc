#include "data/prefetch_queue.h"

#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <utility>

#include "logging/torch_warnings.h"
#include "start_thread.h"

namespace holdfast {
namespace {

// Workers block all signals, so signals go to the program's own threads, whose system calls expect them.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

PrefetchQueue::PrefetchQueue(int workers) {
  SignalsBlocked blocked;
  workers_.reserve(static_cast<std::size_t>(workers));  // a thread that is running cannot be dropped
  try {
    for (int i = 0; i < workers; ++i) {
      workers_.push_back(
          start_thread(fmt::format("for a loader's worker {} of {}", i + 1, workers), [this] { work(); }));
    }
  } catch (...) {
    end();
    throw;
  }
}

PrefetchQueue::~PrefetchQueue() { end(); }

void PrefetchQueue::end() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    waiting_.clear();
  }
  pushed_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void PrefetchQueue::push(Job job) {
  auto task = std::make_shared<Task>();
  task->job = std::move(job);
  in_order_.push_back(task);
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(task));
  }
  pushed_.notify_one();
}

PrefetchQueue::Result PrefetchQueue::pop() {
  const auto task = std::move(in_order_.front());
  in_order_.pop_front();
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return task->done; });
  if (task->error) std::rethrow_exception(std::exchange(task->error, nullptr));
  return std::move(task->result);
}

PrefetchQueue::Result PrefetchQueue::front_if_done() {
  if (in_order_.empty()) return nullptr;
  std::lock_guard lock(mutex_);
  return in_order_.front()->done ? in_order_.front()->result : nullptr;
}

void PrefetchQueue::clear() {
  {
    std::lock_guard lock(mutex_);
    waiting_.clear();
  }
  in_order_.clear();
}

void PrefetchQueue::work() {
  print_warnings_of_this_thread();
  std::unique_lock lock(mutex_);
  while (true) {
    pushed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    auto task = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    Result result;
    std::exception_ptr error;
    try {
      result = task->job();
    } catch (...) {
      error = std::current_exception();
    }
    task->job = nullptr;
    lock.lock();
    task->result = std::move(result);
    task->error = std::move(error);
    task->done = true;
    finished_.notify_one();
    lock.unlock();
    task.reset();  // the result of a cleared job is destroyed here, without the lock
    error = nullptr;
    lock.lock();
  }
}

}  // namespace holdfast
