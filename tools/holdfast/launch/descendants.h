// Processes that ranks started. A rank's children may have left its process group; these two functions still find them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace holdfast::tools {

/// The living children of this process. As a subreaper it becomes the parent of every orphan of its descendants. Their
/// ids cannot be reused before this process waits for them, so a signal sent to one never reaches an unrelated process.
std::vector<pid_t> living_children();

/// Sends SIGKILL to every process, except this one, that was started with `entry` ("NAME=value") in its environment. It
/// is for a caller whose parent is gone and that has no other way to find them. Returns how many there were.
int kill_started_with(const std::string& entry);

}  // namespace holdfast::tools
