// How long tracked objects live: those on the stack must outlive the loops that read them, and the last state of
// objects that are no longer tracked stays in later versions. Threads: one at a time.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "process/stack_owner.h"
#include "state/run_state.h"

namespace holdfast {

class TrackedLifetimes {
 public:
  /// `variable` is tracked under `name`.
  void remember(const std::string& name, const void* variable);
  /// `name` is tracked again: its state is no longer that of an earlier object.
  void revive(const std::string& name) { retired_.erase(name); }
  /// `name` is no longer tracked.
  void forget(const std::string& name) { owners_.erase(name); }

  /// Keeps the present state of `name`, before it is untracked. `keeps_bytes`: also that of tensors that are alike on
  /// all ranks, which rank 0 alone must keep.
  void retire(const RunState& tracked, const std::string& name, bool keeps_bytes);
  /// A loop begins: the next retire() captures the state again.
  void begin_loop() { before_untrack_.reset(); }
  const std::map<std::string, Snapshot>& retired() const { return retired_; }

  /// The state of all tracked and retired objects. Throws as require_alive().
  Snapshot capture(const RunState& tracked) const;
  /// Throws Error(invalid) that names the variable if the function of a tracked one has returned: reading it would save
  /// whatever is in its place now.
  void require_alive() const;

 private:
  std::map<std::string, StackOwner> owners_;  // of tracked variables on the stack, by their names
  std::map<std::string, Snapshot> retired_;   // the last state of objects that are no longer tracked
  std::optional<Snapshot> before_untrack_;    // the state at the first untrack() since the last loop
};

}  // namespace holdfast
