// Work that may block for good in a call that nobody can end, as c10d's are while they connect.
#pragma once

#include <future>
#include <type_traits>
#include <utility>

#include "start_thread.h"

namespace holdfast {

/// Runs `work` on a thread of its own. Who waits for the result may give up: the thread is left behind then, with what
/// `work` holds, which therefore is its own.
template <class Work>
std::future<std::invoke_result_t<Work>> run_detached(Work work) {
  std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
  auto result = task.get_future();
  start_thread("to connect to the other ranks", std::move(task)).detach();
  return result;
}

}  // namespace holdfast
