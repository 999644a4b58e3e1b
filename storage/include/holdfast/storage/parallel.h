// Independent jobs on several threads.
#pragma once

#include <cstddef>
#include <functional>

#include "holdfast/storage/status.h"

namespace holdfast::storage {

/// As many as the machine has, at most 8, because more do not make reading faster.
int thread_count();

/// Runs jobs 0 to `count` - 1 in this order on up to `threads` threads, of which the caller's is one; no new job begins
/// after a failure. Returns the failure of the job with the lowest number. A std::bad_alloc of a job is the failure
/// `unreadable` with the message "no memory"; a job must throw nothing else.
Status in_parallel(std::size_t count, int threads, const std::function<Status(std::size_t)>& job);

}  // namespace holdfast::storage
