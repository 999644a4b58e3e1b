// A fiber: a function with its own stack that runs until it yields. The scheduler of the model runs each writer in one,
// because the product's code blocks inside store calls and must be stopped in the middle of them.
//
// Threads: a fiber is resumed by the thread that made it.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace holdfast::storage::model {

class Fiber {
 public:
  /// `body` must not let an exception escape.
  explicit Fiber(std::function<void()> body);
  /// REQUIRES: finished(), or never resumed.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs `body` until it yields or returns.
  void resume();
  /// Called inside `body`: goes back to whoever resumed.
  void yield();
  bool finished() const { return finished_; }

 private:
  static void enter(unsigned high, unsigned low);
  void switch_in();
  void switch_out(bool for_good);

  std::function<void()> body_;
  std::unique_ptr<std::byte[]> stack_;
  ucontext_t inside_ = {};
  ucontext_t outside_ = {};
  bool started_ = false;
  bool finished_ = false;
  // What the sanitizers must be told at each switch; unused without them.
  [[maybe_unused]] void* inside_fake_stack_ = nullptr;
  [[maybe_unused]] void* outside_fake_stack_ = nullptr;
  [[maybe_unused]] const void* outside_stack_ = nullptr;
  [[maybe_unused]] std::size_t outside_stack_bytes_ = 0;
  [[maybe_unused]] void* inside_thread_ = nullptr;
  [[maybe_unused]] void* outside_thread_ = nullptr;
};

}  // namespace holdfast::storage::model
