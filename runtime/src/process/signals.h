// Signals that request a save. They only set flags, so they may arrive in any phase: start-up, restore, a step, a save.
//
//   SIGTERM, SIGINT, SIGHUP   save at the next step boundary and stop
//   SIGUSR1                   save at the next step boundary and continue
//   the first SIGINT          answers at once with one line on stderr
//   a second SIGINT           the system's default action: the process ends at once (a shell sees status 130)
//   SIGPIPE                   a write to a reader that is gone fails; the process continues, its output is dropped
//   SIGXFSZ                   a write beyond `ulimit -f` fails with an error; the process continues
//
// A SIGHUP or SIGINT that was ignored when the program started stays ignored: nohup and background jobs intend it. An
// action that the program itself set for SIGPIPE or SIGXFSZ stays too. A session never sets an action to "ignore",
// because programs that this one starts would inherit that; they do not inherit a handler.
//
// After the session: if it ended early (finish() returned another code than 0), everything that could be saved is saved
// and the process is about to end, so SIGTERM, SIGINT and SIGHUP have no effect until then. If it ended with 0, the
// former actions are restored and the program can be stopped as any other, until main() returns: from then on SIGTERM
// and SIGHUP have no effect either. SIGPIPE and SIGXFSZ stay as they are in both cases.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace holdfast {

/// Installs the handlers while it lives and then restores the former ones. At most one at a time in a process; used by
/// one thread. It does not see signals that arrived before it was made.
class SignalWatch {
 public:
  /// `answers`: whether this process confirms the first SIGINT to the user, as one of several ranks does.
  explicit SignalWatch(bool answers = true);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// The first signal that asked to stop; it stays.
  std::optional<int> stop_signal() const;
  /// Whether SIGUSR1 arrived since the last call.
  bool take_save_request();
  /// From here on to the end of the process, stop requests have no effect, because the program is already stopping.
  void stop_is_under_way();
  /// Nothing is left to save, and no stop was requested: restores the former actions.
  void release();

 private:
  bool installed_ = true;
};

/// While it lives, a stop request ends the process at once, because nothing was begun that could be saved: the handler
/// writes `sentence` to stderr and exits with `code`. A request that a SignalWatch saw before does the same. One at a
/// time.
class NothingToSave {
 public:
  NothingToSave(const std::string& sentence, int code);
  ~NothingToSave();
  NothingToSave(const NothingToSave&) = delete;
  NothingToSave& operator=(const NothingToSave&) = delete;
};

/// From here on a write to a reader that is gone fails with EPIPE instead of ending the process, unless the program set
/// an action of its own for SIGPIPE.
void survive_broken_pipes();

/// "SIGTERM".
std::string_view signal_name(int signal);

}  // namespace holdfast
