// Work that may block forever in a call that cannot be ended, such as c10d's while they connect.
#pragma once

#include <future>
#include <type_traits>
#include <utility>

#include "start_thread.h"

namespace holdfast {

/// Runs `work` on a thread of its own. A caller that waits for the result may give up. The thread then stays behind
/// with everything that `work` holds, so `work` must own it.
template <class Work>
std::future<std::invoke_result_t<Work>> run_detached(Work work) {
  std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
  auto result = task.get_future();
  start_thread("to connect to the other ranks", std::move(task)).detach();
  return result;
}

}  // namespace holdfast
