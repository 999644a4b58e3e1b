// How a rank ended, and what that means for the other ranks.
#pragma once

#include <string>

#include "holdfast/runtime/platform/launcher.h"

namespace holdfast::tools {

// Exit codes of launch itself; ExitCode has those that it shares with ranks.
inline constexpr int kCrashLoop = 70;       // EX_SOFTWARE: launch gave up because failures repeat without progress
inline constexpr int kNotExecutable = 126;  // as shells do
inline constexpr int kNotFound = 127;

struct RankEnd {
  int rank = 0;
  int code = 0;    // if signal is 0
  int signal = 0;  // the signal that ended it

  /// 0 means done and 75 means stopped after a save; everything else is a failure of all ranks.
  bool failed() const { return signal != 0 || (code != 0 && code != ExitCode::kRunAgain); }
  /// The exit code that a shell would report.
  int exit_code() const { return signal != 0 ? 128 + signal : code; }
  /// "exit code 3", "ended by SIGKILL".
  std::string text() const;
};

/// "SIGTERM"; "signal 40" for one without a name.
std::string signal_name(int signal);

}  // namespace holdfast::tools
