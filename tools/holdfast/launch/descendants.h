// Processes that ranks started. A rank's own children may have left its process group, but not these two ways to them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace holdfast::tools {

/// The living children of this process; as a subreaper it gets every orphan of its descendants. Their ids cannot be
/// another's before this process waits for them, so a signal sent to one never reaches a stranger.
std::vector<pid_t> living_children();

/// Sends SIGKILL to every process but this one that was started with `entry` ("NAME=value") in its environment, for one
/// whose parent is gone and who has no other tie to them. Returns how many there were.
int kill_started_with(const std::string& entry);

}  // namespace holdfast::tools
