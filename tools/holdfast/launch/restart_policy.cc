#include "launch/restart_policy.h"

#include <fmt/format.h>

#include <algorithm>

#include "holdfast/storage/text/units.h"

namespace holdfast::tools {
namespace {

constexpr int kFailuresWithoutProgress = 3;
constexpr std::chrono::milliseconds kLongestPause{60'000};

}  // namespace

Decision RestartPolicy::after(const StartOutcome& outcome) {
  if (!outcome.first_failure)
    return {.exit_code = outcome.stopped_early ? ExitCode::kRunAgain : ExitCode::kDone, .reason = {}};
  const RankEnd& failure = *outcome.first_failure;
  const bool progress = outcome.saved_step && (!best_step_ || *outcome.saved_step > *best_step_);
  if (progress) best_step_ = outcome.saved_step;
  without_progress_ = progress ? 0 : without_progress_ + 1;

  const auto stop = [&](std::string reason, std::optional<int> code = {}) {
    return Decision{.exit_code = code.value_or(failure.exit_code()), .reason = std::move(reason)};
  };
  if (outcome.told_to_stop) return stop("");
  if (limits_.restarts == 0) return stop("");
  if (failure.signal == 0 && failure.code == ExitCode::kUsage) {
    return stop("not restarted: an option is wrong and would be wrong again");
  }
  // Two launches of one run would take it over from each other in turns.
  if (failure.signal == 0 && failure.code == ExitCode::kSuperseded) {
    return stop("not restarted: the run continues elsewhere");
  }
  if (restarts_ == limits_.restarts) {
    return stop(fmt::format("not restarted: all {} restarts of --max-restarts are used", limits_.restarts));
  }
  if (limits_.sees_progress && without_progress_ >= kFailuresWithoutProgress) {
    return stop(fmt::format("not restarted: {} failures in a row without a newer saved step{}; exit code {}",
                            without_progress_, best_step_ ? fmt::format(" than {}", *best_step_) : "", kCrashLoop),
                kCrashLoop);
  }
  const auto before = pause();
  ++restarts_;
  return {
      .restart = true,
      .pause = before,
      .reason = fmt::format("restart {} of {} in {}", restarts_, limits_.restarts, storage::format_duration(before))};
}

std::chrono::milliseconds RestartPolicy::pause() const {
  auto pause = limits_.first_pause;
  for (int i = 0; i < restarts_ && pause < kLongestPause; ++i) pause *= 2;
  // A longer first pause that the user asked for is kept.
  return std::min(pause, std::max(kLongestPause, limits_.first_pause));
}

}  // namespace holdfast::tools
