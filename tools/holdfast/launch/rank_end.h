// How a rank ended, and what that means for the other ranks.
#pragma once

#include <string>

namespace holdfast::tools {

// Exit codes shared by ranks and launch; those of a session are in holdfast/runtime/session/session.h.
inline constexpr int kRankUsage = 64;       // EX_USAGE: an option of the program is wrong
inline constexpr int kRankSuperseded = 69;  // EX_UNAVAILABLE: another session took the run over
inline constexpr int kRunAgain = 75;        // EX_TEMPFAIL: stopped early after a save
inline constexpr int kCrashLoop = 70;       // EX_SOFTWARE: launch gave up because failures repeat without progress
inline constexpr int kNotExecutable = 126;  // as shells do
inline constexpr int kNotFound = 127;

struct RankEnd {
  int rank = 0;
  int code = 0;    // if signal is 0
  int signal = 0;  // the signal that ended it

  /// 0 means done and 75 means stopped after a save; everything else is a failure of all ranks.
  bool failed() const { return signal != 0 || (code != 0 && code != kRunAgain); }
  /// The exit code that a shell would report.
  int exit_code() const { return signal != 0 ? 128 + signal : code; }
  /// "exit code 3", "ended by SIGKILL".
  std::string text() const;
};

/// "SIGTERM"; "signal 40" for one without a name.
std::string signal_name(int signal);

}  // namespace holdfast::tools
