// Two sessions on one run: one stands still before any of its calls while the other does something complete. No crash;
// all schedules with one switch and back.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "simulated_disk.h"

namespace holdfast::storage::crash {

struct TwoSessions {
  std::size_t schedules = 0;
  std::vector<std::string> broken;  // what went wrong, with the schedule; stops at the first where asked to
};

/// `sabotage` breaks the product on the disk that it runs on.
TwoSessions search_two_sessions(const std::function<void(SimulatedDisk&)>& sabotage, bool stop_at_first);

}  // namespace holdfast::storage::crash
