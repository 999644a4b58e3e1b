// How long this machine stays, and when a run must stop to be saved in time. Functions of what was found and measured.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/platform/profile.h"
#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast {

struct TimeLeft {
  std::optional<std::chrono::nanoseconds> left = {};  // from now on; empty: no limit is known
  std::string reason = {};                            // "Colab's limit of 12 h", "SLURM_JOB_END_TIME"
  std::string note = {};                              // why a limit does not count, and what to do; else empty
};

/// The earliest of the ends that are known. `age`: the machine's. `asked`: option time-limit, which counts from the
/// program's start and replaces the platform's limit; zero: not given. `now`: seconds since the Unix epoch, for
/// SLURM_JOB_END_TIME. A platform's limit that the machine has already outlived is not this account's limit, and does
/// not count.
TimeLeft time_left(const Profile& profile, std::optional<std::chrono::seconds> age, std::chrono::nanoseconds asked,
                   const Surroundings& around, std::chrono::seconds now);

/// Durations of one kind, of which only the newest 32 count. One thread.
class Costs {
 public:
  void add(std::chrono::nanoseconds duration);
  /// The duration that 95 % do not exceed; zero before the first.
  std::chrono::nanoseconds p95() const;

 private:
  std::vector<std::chrono::nanoseconds> newest_;
  std::size_t next_ = 0;
};

/// Whether another step, and the save after it, may not end before `end` less `margin`.
bool must_stop(std::chrono::steady_clock::time_point now, std::chrono::steady_clock::time_point end,
               std::chrono::nanoseconds margin, const Costs& steps, const Costs& saves);

}  // namespace holdfast
