// The part of a group that only the library calls: options of the start, the agreement on saves and stops, the report
// of a failure, and the end. group.h is what users call.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "holdfast/runtime/ranks/group.h"
#include "policy/stop_request.h"

namespace holdfast::detail {

struct GroupOptions {
  std::chrono::milliseconds join_within{300000};       // how long to wait for the other ranks at the start
  std::chrono::milliseconds say_waiting_after{30000};  // a slow rank is reported once, after so long
  std::chrono::milliseconds silence{15000};            // a rank without a heartbeat for so long counts as dead
  std::function<void(const std::string&)> say = {};    // by default to stderr
  bool watchdog = true;  // false: nothing ends a wait for a rank that is gone; only to measure the watchdog's cost
};

/// A view of a group, which it need not outlive: `GroupControl(group).close()`.
class GroupControl {
 public:
  using Site = Group::Site;

  explicit GroupControl(Group& group) : group_(group) {}

  /// Reports that this rank has done `step`, and its `wish`, which may be empty. Returns what all ranks agreed to do
  /// after this very step. It is not a collective: rank 0 receives the wishes with the heartbeats and chooses a step
  /// that no rank has passed, so a wish takes effect up to a second later. Rank 0 chooses no step beyond `last` (the
  /// epoch's end) before it got there.
  StopRequest at_step(std::uint64_t step, std::uint64_t last, const StopRequest& wish, Site site = Site::current());

  /// Why all ranks must stop; nothing without a fault.
  std::optional<std::string> fault() const;
  /// Informs the others that this rank stops, and why; the reason of a rank that stopped earlier stays. `leaves`: the
  /// process ends next; if it holds the store, wait until the others could read the reason there.
  void fail(const std::string& why, bool leaves = false);
  /// All ranks agree to end: the last operation of the group.
  void close(Site site = Site::current());

 private:
  Group& group_;
};

}  // namespace holdfast::detail
