// How a rank ended, and what that means for the others.
#pragma once

#include <string>

namespace holdfast::tools {

// Exit codes with a meaning between ranks and launch; a session's own are in runtime/session.h.
inline constexpr int kRankUsage = 64;       // EX_USAGE: an option of the program is wrong
inline constexpr int kRankSuperseded = 69;  // EX_UNAVAILABLE: another session took the run over
inline constexpr int kRunAgain = 75;        // EX_TEMPFAIL: stopped early after a save
inline constexpr int kCrashLoop = 70;       // EX_SOFTWARE: launch gave up, for the failures come without progress
inline constexpr int kNotExecutable = 126;  // as shells do
inline constexpr int kNotFound = 127;

struct RankEnd {
  int rank = 0;
  int code = 0;    // where signal is 0
  int signal = 0;  // that ended it

  /// 0 is done and 75 is stopped after a save; everything else is a failure, of all ranks.
  bool failed() const { return signal != 0 || (code != 0 && code != kRunAgain); }
  /// What a shell would make of it.
  int exit_code() const { return signal != 0 ? 128 + signal : code; }
  /// "exit code 3", "ended by SIGKILL".
  std::string text() const;
};

/// "SIGTERM"; "signal 40" for one without a name.
std::string signal_name(int signal);

}  // namespace holdfast::tools
