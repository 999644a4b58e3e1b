// Signals that ask for a save. They only set flags, so they may come in any phase: start-up, restore, a step, a save.
//
//   SIGTERM, SIGINT, SIGHUP   save at the next step boundary and stop
//   SIGUSR1                   save at the next step boundary and go on
//   the first SIGINT          answers at once with one line on stderr
//   a second SIGINT           the system's default action: the process ends at once (a shell sees status 130)
//   SIGPIPE                   a write to a reader that is gone fails; the process goes on, its output is dropped
//   SIGXFSZ                   a write beyond `ulimit -f` fails with an error; the process goes on
//
// A SIGHUP or SIGINT that was ignored when the program started stays ignored: nohup and background jobs mean it. So
// does whatever the program set itself for SIGPIPE and SIGXFSZ. No disposition is "ignore", because a program that this
// one starts would inherit that; a handler it does not.
//
// After the session: where it ended early (finish() returned another code than 0), everything that could be saved is
// saved and the process is on its way out, so SIGTERM, SIGINT and SIGHUP have no effect any more, to the end of the
// process. Where it ended with 0, the former actions come back and the program can be stopped as any other, until
// main() is over: from then on SIGTERM and SIGHUP have no effect either. SIGPIPE and SIGXFSZ stay as they are in both
// cases.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace holdfast {

/// Installs the handlers while it lives and puts the former ones back. At most one at a time in a process; used by one
/// thread. Signals that came before it was made are not seen.
class SignalWatch {
 public:
  /// `answers`: whether this process tells the user that it heard the first SIGINT, as one of several ranks does.
  explicit SignalWatch(bool answers = true);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// The first signal that asked to stop; it stays.
  std::optional<int> stop_signal() const;
  /// Whether SIGUSR1 came since the last call.
  bool take_save_request();
  /// From here on to the end of the process signals that ask to stop have no effect: the program stops already.
  void stop_is_under_way();
  /// Nothing is left to save, and nobody asked this program to stop: the former actions come back.
  void release();

 private:
  bool installed_ = true;
};

/// While it lives, a signal that asks to stop ends the process at once, because nothing was begun that could be saved:
/// it writes `sentence` to stderr and exits with `code`. So does one that a SignalWatch saw before. One at a time.
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
