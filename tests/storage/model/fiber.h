// A fiber: a function with its own stack that runs until it yields. The scheduler of the model runs each writer in a
// fiber, because the product's code blocks inside store calls and must be stopped in the middle of them.
//
// Threads: a fiber is resumed by the thread that made it.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace holdfast::storage::model {

/// Data that the sanitizers need at each switch of stacks; unused without them.
struct SanitizerNotes {
  void* inside_fake_stack = nullptr;
  void* outside_fake_stack = nullptr;
  const void* outside_stack = nullptr;
  std::size_t outside_stack_bytes = 0;
  void* inside_thread = nullptr;
  void* outside_thread = nullptr;
};

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
  /// Called inside `body`: returns to the caller of resume().
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
  // A pointer, because clang warns about an unused plain member, and g++ 11 about the attribute that would allow it.
  std::unique_ptr<SanitizerNotes> notes_ = std::make_unique<SanitizerNotes>();
};

}  // namespace holdfast::storage::model
