// Two sessions on one run: one is paused before any of its calls while the other performs a complete operation. No
// crash; all schedules with one switch and back.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "simulated_disk.h"

namespace holdfast::storage::crash {

struct TwoSessions {
  std::size_t schedules = 0;
  std::vector<std::string> broken;  // broken promises with their schedules; only the first with `stop_at_first`
};

/// `sabotage` breaks the product on the disk that it uses.
TwoSessions search_two_sessions(const std::function<void(SimulatedDisk&)>& sabotage, bool stop_at_first);

}  // namespace holdfast::storage::crash
