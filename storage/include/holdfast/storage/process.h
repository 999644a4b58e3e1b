// What Linux reports about the processes of this machine. Source: proc(5), /proc/PID/stat.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace holdfast::storage {

struct ProcessStat {
  std::string command;     // its first 15 bytes
  bool has_ended = false;  // its parent has not yet waited for it
  pid_t parent = 0;
  std::string start;  // in clock ticks since the boot; two processes with the same pid differ in it
};

/// Empty if the process does not exist or /proc cannot be read.
std::optional<ProcessStat> read_process_stat(pid_t pid);

/// Changes with every boot; empty if unknown.
std::string boot_id();

/// The boot and the pid namespace, because a pid means another process after a boot or in another container. Empty if
/// unknown.
std::string pid_space();

}  // namespace holdfast::storage
