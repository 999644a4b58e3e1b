// Signals to launch, as a descriptor that can be polled beside everything else.
#pragma once

#include <signal.h>

#include <optional>

namespace holdfast::tools {

class Signals {
 public:
  struct Arrived {
    int number = 0;
    bool from_terminal = false;  // Ctrl-C and the like: the whole foreground process group got it
  };

  /// From here on signals wait in the queue; what the starter of launch ignores (nohup) stays ignored.
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int descriptor() const { return descriptor_; }  // -1 where the system has none left
  std::optional<Arrived> take();
  /// What ranks shall have.
  const sigset_t& former_mask() const { return former_mask_; }

  /// Asks ranks to end.
  static bool stops(int signal);

 private:
  int descriptor_ = -1;
  sigset_t former_mask_{};
};

}  // namespace holdfast::tools
