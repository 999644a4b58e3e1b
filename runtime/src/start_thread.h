// Starts threads, which the system may refuse.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "holdfast/runtime/error.h"

namespace holdfast {

/// A thread that runs `work`. Throws Error(unreadable) that names the purpose if the system cannot start another
/// thread.
template <class Work>
std::thread start_thread(std::string_view purpose, Work work) {
  try {
    return std::thread(std::move(work));
  } catch (const std::system_error& error) {
    throw Error(
        storage::StatusCode::unreadable,
        fmt::format("cannot start a thread {} ({}): raise ulimit -u, or the container's limits of processes and "
                    "memory",
                    purpose, error.code().message()));
  }
}

}  // namespace holdfast
