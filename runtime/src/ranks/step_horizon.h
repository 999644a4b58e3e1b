// How ranks agree on the step after which all of them save or stop, when only one of them knows the reason (a signal, a
// clock) and no step may wait for a collective: rank 0 grants steps ahead of its own, and a request takes effect at the
// end of the granted steps, which no rank can have passed. The grant travels with rank 0's heartbeat.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>

#include "policy/stop_request.h"

namespace holdfast {

/// Rank 0's message to the others.
struct Grant {
  std::uint64_t until = 0;  // no rank begins a step after this one
  std::uint64_t at = 0;     // the step after which `request` takes effect; 0: none yet
  StopRequest request;
};

/// Rank 0's side. Its decisions depend on its arguments only.
class StepHorizon {
 public:
  using Clock = std::chrono::steady_clock;

  /// The steps of one second, at the speed of the fastest recent step: a message may be late by so many.
  static std::uint64_t steps_ahead(std::chrono::nanoseconds fastest_step);

  /// Rank 0 has done `step`; it grants nothing beyond `last` before it got there. `wish`: any rank's. Returns the
  /// request that takes effect here, if any. The caller repeats a wish that came while another request was pending.
  std::optional<StopRequest> reach(std::uint64_t step, std::uint64_t last, Clock::time_point now,
                                   const StopRequest& wish);
  const Grant& grant() const { return grant_; }
  /// Whether reach() accepted the wish.
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
