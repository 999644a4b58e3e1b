// Decides what follows when all ranks have ended, and gives the reason. It uses no clock and no processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "launch/rank_end.h"

namespace holdfast::tools {

/// What happened from one start of the ranks until the last of them ended.
struct StartOutcome {
  std::optional<RankEnd> first_failure;
  bool stopped_early = false;               // a rank ended with ExitCode::kRunAgain
  bool told_to_stop = false;                // by a signal, before anything failed
  std::optional<std::uint64_t> saved_step;  // of the newest version that rank 0 has reported in any start
};

struct Decision {
  bool restart = false;
  std::chrono::milliseconds pause{0};  // before the restart
  int exit_code = 0;                   // if there is no restart
  std::string reason;                  // empty if the ranks' own exit explains everything
};

class RestartPolicy {
 public:
  struct Limits {
    int restarts = 0;
    std::chrono::milliseconds first_pause{1000};
    /// Rank 0 is on this node, so saved_step is known if a version was saved.
    bool sees_progress = true;
  };
  explicit RestartPolicy(const Limits& limits) : limits_(limits) {}

  Decision after(const StartOutcome& outcome);
  int restarts() const { return restarts_; }

 private:
  std::chrono::milliseconds pause() const;

  const Limits limits_;
  int restarts_ = 0;
  int without_progress_ = 0;  // failures in a row
  std::optional<std::uint64_t> best_step_;
};

}  // namespace holdfast::tools
