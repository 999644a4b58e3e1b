#include "fiber.h"

#include <cassert>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define MODEL_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MODEL_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define MODEL_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MODEL_THREAD_SANITIZER 1
#endif
#endif
#ifdef MODEL_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef MODEL_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace holdfast::storage::model {
namespace {

constexpr std::size_t kStackBytes = 512 * 1024;

// Stacks are reused, because a search makes and ends millions of fibers.
thread_local std::vector<std::unique_ptr<std::byte[]>> free_stacks;

std::unique_ptr<std::byte[]> take_stack() {
  if (free_stacks.empty()) return std::unique_ptr<std::byte[]>(new std::byte[kStackBytes]);
  auto stack = std::move(free_stacks.back());
  free_stacks.pop_back();
  return stack;
}

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()) {
#ifdef MODEL_THREAD_SANITIZER
  notes_->inside_thread = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  assert(finished_ || !started_);
#ifdef MODEL_THREAD_SANITIZER
  __tsan_destroy_fiber(notes_->inside_thread);
#endif
  free_stacks.push_back(std::move(stack_));
}

void Fiber::enter(unsigned high, unsigned low) {
  auto* fiber = reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low);
#ifdef MODEL_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &fiber->notes_->outside_stack, &fiber->notes_->outside_stack_bytes);
#endif
  fiber->body_();
  fiber->finished_ = true;
  fiber->switch_out(true);
}

void Fiber::resume() {
  assert(!finished_);
  if (!started_) {
    started_ = true;
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = kStackBytes;
    inside_.uc_link = nullptr;
    // makecontext passes only ints, so the pointer is passed in two halves.
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&inside_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self & 0xffffffffu));
  }
  switch_in();
}

void Fiber::yield() { switch_out(false); }

void Fiber::switch_in() {
#ifdef MODEL_THREAD_SANITIZER
  notes_->outside_thread = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(notes_->inside_thread, 0);
#endif
#ifdef MODEL_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(&notes_->outside_fake_stack, stack_.get(), kStackBytes);
#endif
  swapcontext(&outside_, &inside_);
#ifdef MODEL_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(notes_->outside_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::switch_out(bool for_good) {
#ifdef MODEL_THREAD_SANITIZER
  __tsan_switch_to_fiber(notes_->outside_thread, 0);
#endif
#ifdef MODEL_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(for_good ? nullptr : &notes_->inside_fake_stack, notes_->outside_stack,
                                 notes_->outside_stack_bytes);
#else
  (void)for_good;
#endif
  swapcontext(&inside_, &outside_);
#ifdef MODEL_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(notes_->inside_fake_stack, &notes_->outside_stack, &notes_->outside_stack_bytes);
#endif
}

}  // namespace holdfast::storage::model
