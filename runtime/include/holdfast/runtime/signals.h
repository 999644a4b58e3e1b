// Signals that ask for a save. They only set flags, so they may come in any phase: start-up, restore, a step, a save.
//
//   SIGTERM, SIGINT, SIGHUP   save at the next step boundary and stop
//   SIGUSR1                   save at the next step boundary and go on
//   a second SIGINT           the system's default action: the process ends at once (a shell sees status 130)
//   SIGXFSZ                   ignored: a write beyond `ulimit -f` then fails with a sentence instead of a death
//
// A SIGHUP or SIGINT that was ignored when the program started stays ignored: nohup and background jobs mean it.
#pragma once

#include <csignal>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast {

/// Installs the handlers while it lives and puts the former ones back. At most one at a time in a process; asked by one
/// thread. Signals that came before it was made are not seen.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// The first signal that asked to stop; it stays.
  std::optional<int> stop_signal() const;
  /// Whether SIGUSR1 came since the last call.
  bool take_save_request();

 private:
  struct Former {
    int signal = 0;
    struct sigaction action {};
    bool installed = false;
  };
  Former former_[5];
};

/// While it lives, a signal that asks to stop ends the process at once, for nothing was begun that could be saved: it
/// writes `sentence` to stderr and exits with `code`. So does one that a SignalWatch saw before. One at a time.
class NothingToSave {
 public:
  NothingToSave(const std::string& sentence, int code);
  ~NothingToSave();
  NothingToSave(const NothingToSave&) = delete;
  NothingToSave& operator=(const NothingToSave&) = delete;

 private:
  const std::string line_;
};

/// "SIGTERM".
std::string_view signal_name(int signal);

}  // namespace holdfast
