// Work that may block forever in a call that cannot be ended, such as c10d's while they connect, or one of a mount
// that does not answer.
#pragma once

#include <future>
#include <string_view>
#include <type_traits>
#include <utility>

#include "start_thread.h"

namespace holdfast {

/// Runs `work` on a thread of its own, which an error names by its `purpose`. A caller that waits for the result may
/// give up. The thread then stays behind with everything that `work` holds, so `work` must own it.
template <class Work>
std::future<std::invoke_result_t<Work>> run_detached(std::string_view purpose, Work work) {
  std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
  auto result = task.get_future();
  start_thread(purpose, std::move(task)).detach();
  return result;
}

}  // namespace holdfast
