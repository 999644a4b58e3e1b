#include "process/stack_owner.h"

#include <unwind.h>

#include <cstdint>
#include <functional>

namespace holdfast {
namespace {

struct Frame {
  std::uintptr_t begin, end;
  const void* function;
};

// For each function on the stack, the unwinder (Itanium C++ ABI, Level I) gives the stack pointer at its call of the
// next one: there its frame begins, and the frame of the called function ends.
struct Walk {
  const std::function<bool(const Frame&)>& stop_at;
  std::uintptr_t begin = 0;
  const void* function = nullptr;
};

_Unwind_Reason_Code step(_Unwind_Context* context, void* argument) {
  Walk& walk = *static_cast<Walk*>(argument);
  const auto begin = static_cast<std::uintptr_t>(_Unwind_GetCFA(context));
  if (walk.function != nullptr && walk.stop_at({walk.begin, begin, walk.function})) return _URC_END_OF_STACK;
  walk.begin = begin;
  walk.function = reinterpret_cast<const void*>(_Unwind_GetRegionStart(context));
  return _URC_NO_REASON;
}

void walk_frames(const std::function<bool(const Frame&)>& stop_at) {
  Walk walk{stop_at};
  (void)_Unwind_Backtrace(step, &walk);
}

}  // namespace

std::optional<StackOwner> owner_of(const void* variable) {
  const auto address = reinterpret_cast<std::uintptr_t>(variable);
  std::optional<StackOwner> owner;
  walk_frames([&](const Frame& frame) {
    if (address < frame.begin || address >= frame.end) return false;
    owner = {reinterpret_cast<const void*>(frame.end), frame.function};
    return true;
  });
  return owner;
}

bool has_returned(const StackOwner& owner) {
  bool runs = false;
  walk_frames([&](const Frame& frame) {
    runs = reinterpret_cast<const void*>(frame.end) == owner.frame_end && frame.function == owner.function;
    return runs;
  });
  return !runs;
}

}  // namespace holdfast
