// How long this machine has been running. Platforms count their limits from its start, not from the program's.
//
// Sources: proc_pid_stat(5), field 22 (starttime); proc_uptime(5).
#pragma once

#include <chrono>
#include <optional>

#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast {

/// The age of the process with number 1: of the machine's init, or in a container of the container's first process.
/// Empty where /proc does not show it.
std::optional<std::chrono::seconds> machine_age(const Surroundings& around);

}  // namespace holdfast
