#include "ranks/step_horizon.h"

#include <algorithm>

namespace holdfast {

std::uint64_t StepHorizon::steps_ahead(std::chrono::nanoseconds fastest_step) {
  constexpr std::chrono::nanoseconds kNewsAtMost = std::chrono::seconds(1);
  constexpr std::int64_t kFewest = 2, kMost = 1 << 20;
  if (fastest_step.count() <= 0) return kFewest;
  return static_cast<std::uint64_t>(std::clamp(kNewsAtMost / fastest_step, kFewest, kMost));
}

std::optional<StopRequest> StepHorizon::reach(std::uint64_t step, std::uint64_t last, Clock::time_point now,
                                              const StopRequest& wish) {
  if (step == last_step_ + 1) durations_[measured_++ % durations_.size()] = now - last_time_;
  if (step != last_step_) {
    last_step_ = step;
    last_time_ = now;
  }
  const auto known = static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(measured_, durations_.size()));
  const auto fastest =
      known > 0 ? *std::min_element(durations_.begin(), durations_.begin() + known) : std::chrono::nanoseconds(0);

  took_wish_ = !pending_ && !wish.empty();
  if (took_wish_) {
    // No rank has passed the grant, so all of them will reach its end.
    grant_.until = std::max(grant_.until, step);
    grant_.at = grant_.until;
    grant_.request = wish;
    pending_ = true;
  }
  std::optional<StopRequest> due;
  if (pending_ && step >= grant_.at) {
    due = grant_.request;
    pending_ = false;
  }
  if (!pending_) {
    const std::uint64_t ahead = steps_ahead(fastest);
    const std::uint64_t until = std::min(step + ahead, std::max(last, step + 1));
    // Not at every step: each new grant is a message.
    if (grant_.until <= step || until >= grant_.until + (ahead + 1) / 2) grant_.until = std::max(grant_.until, until);
  }
  return due;
}

}  // namespace holdfast
