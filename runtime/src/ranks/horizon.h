// How ranks agree on the step after which all of them save or stop, when only one of them knows why (a signal, a clock)
// and no step may wait for a collective: rank 0 grants steps ahead of its own, and what it orders takes place at the
// end of what it has granted, which no rank can have passed. The grant travels with the watch's records.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>

#include "holdfast/runtime/policy/step_order.h"

namespace holdfast {

/// Rank 0's word to the others.
struct Grant {
  std::uint64_t until = 0;  // no rank begins a step after this one
  std::uint64_t at = 0;     // the step after which `order` takes place; 0: none was given yet
  StepOrder order;
};

/// Rank 0's side. Its decisions depend on what it is told and on nothing else.
class Horizon {
 public:
  using Clock = std::chrono::steady_clock;

  /// Steps that a second's news may be late for: a second's worth of the fastest of the last steps.
  static std::uint64_t steps_ahead(std::chrono::nanoseconds fastest_step);

  /// Rank 0 has done `step`; nothing is granted beyond `last` before it got there. `wish`: of any rank. What takes
  /// place here, if anything; a wish that came while an order was under way stays the caller's to repeat.
  std::optional<StepOrder> reach(std::uint64_t step, std::uint64_t last, Clock::time_point now, const StepOrder& wish);
  const Grant& grant() const { return grant_; }
  /// Whether reach() took the wish up.
  bool took_wish() const { return took_wish_; }

 private:
  Grant grant_;
  bool pending_ = false;
  bool took_wish_ = false;
  std::array<std::chrono::nanoseconds, 16> durations_{};
  std::uint64_t measured_ = 0;
  std::uint64_t last_step_ = 0;
  Clock::time_point last_time_;
};

}  // namespace holdfast
