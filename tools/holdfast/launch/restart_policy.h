// What follows when all ranks are over: a decision from what happened, with its reason. No clock, no processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "launch/rank_end.h"

namespace holdfast::tools {

/// What happened from one start of the ranks to the end of the last of them.
struct StartOutcome {
  std::optional<RankEnd> first_failure;
  bool stopped_early = false;               // a rank ended with kRunAgain
  bool told_to_stop = false;                // by a signal, before anything failed
  std::optional<std::uint64_t> saved_step;  // of the newest version that rank 0 told of, in whichever start
};

struct Decision {
  bool restart = false;
  std::chrono::milliseconds pause{0};  // before the restart
  int exit_code = 0;                   // where there is none
  std::string reason;                  // empty where the ranks' own end says it all
};

class RestartPolicy {
 public:
  struct Limits {
    int restarts = 0;
    std::chrono::milliseconds first_pause{1000};
    /// Rank 0 is on this node, so that saved_step is known where there is one.
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
