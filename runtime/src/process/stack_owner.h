// Whether the function that declared a variable has returned.
//
// A variable of automatic storage lies in the frame of its function on the thread's stack. The frame is identified by
// its end and by the function: while that function runs, each walk over the stack finds both again. A variable of an
// inlined function counts as a variable of the function around it.
#pragma once

#include <optional>

namespace holdfast {

struct StackOwner {
  const void* frame_end = nullptr;  // the address behind the frame; stacks grow downwards
  const void* function = nullptr;   // its first instruction
};

/// Nothing if `variable` does not lie in a frame of the calling thread: static, on the heap, another thread's.
std::optional<StackOwner> owner_of(const void* variable);

/// Call it on the same thread.
bool has_returned(const StackOwner& owner);

}  // namespace holdfast
