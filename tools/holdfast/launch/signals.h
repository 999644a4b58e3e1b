// Signals to launch, as a descriptor that can be polled with the others.
#pragma once

#include <signal.h>

#include <optional>

namespace holdfast::tools {

class Signals {
 public:
  struct Arrived {
    int number = 0;
    bool from_terminal = false;  // from Ctrl-C and the like, which the whole foreground process group receives
  };

  /// From construction on, signals wait in the queue. Signals that launch's parent ignored (nohup) stay ignored.
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int descriptor() const { return descriptor_; }  // -1 if the system has none left
  std::optional<Arrived> take();
  /// The signal mask for ranks.
  const sigset_t& former_mask() const { return former_mask_; }

  /// Whether the signal asks ranks to end.
  static bool stops(int signal);

 private:
  int descriptor_ = -1;
  sigset_t former_mask_{};
};

}  // namespace holdfast::tools
