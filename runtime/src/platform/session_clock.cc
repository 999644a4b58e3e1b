#include "holdfast/runtime/platform/session_clock.h"

#include <algorithm>
#include <charconv>

#include "holdfast/storage/text/units.h"

namespace holdfast {

using std::chrono::nanoseconds;
using std::chrono::seconds;
using storage::format_duration;

TimeLeft time_left(const Profile& profile, std::optional<seconds> age, nanoseconds asked, const Surroundings& around,
                   seconds now) {
  TimeLeft found;
  const auto consider = [&](nanoseconds left, std::string reason) {
    if (found.left && *found.left <= left) return;
    found.left = left;
    found.reason = std::move(reason);
  };
  if (asked > nanoseconds(0)) {
    consider(asked, "time limit of " + format_duration(asked));
  } else if (profile.limit && age) {
    const std::string limit = profile.title + "'s limit of " + format_duration(*profile.limit);
    if (*age < *profile.limit) {
      consider(*profile.limit - *age, limit);
    } else {
      found.note = "this machine has been running for " + format_duration(*age) + ", longer than " + limit +
                   ", so no limit is assumed: give yours with --holdfast.time-limit";
    }
  }
  // Seconds since the epoch (Slurm, sbatch(1), output environment variables).
  if (const auto end = around.variable("SLURM_JOB_END_TIME")) {
    std::int64_t at = 0;
    const auto [rest, error] = std::from_chars(end->data(), end->data() + end->size(), at);
    if (error == std::errc() && rest == end->data() + end->size()) {
      consider(std::max(seconds(at) - now, seconds(0)), "end of the Slurm job, SLURM_JOB_END_TIME");
    }
  }
  return found;
}

void Costs::add(nanoseconds duration) {
  constexpr std::size_t kNewest = 32;
  if (newest_.size() < kNewest) {
    newest_.push_back(duration);
  } else {
    newest_[next_] = duration;
  }
  next_ = (next_ + 1) % kNewest;
}

nanoseconds Costs::p95() const {
  if (newest_.empty()) return nanoseconds(0);
  std::vector<nanoseconds> sorted = newest_;
  const auto place = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() * 95 + 99) / 100 - 1);
  std::nth_element(sorted.begin(), place, sorted.end());
  return *place;
}

bool must_stop(std::chrono::steady_clock::time_point now, std::chrono::steady_clock::time_point end, nanoseconds margin,
               const Costs& steps, const Costs& saves) {
  return end - now < margin + steps.p95() + saves.p95();
}

}  // namespace holdfast
