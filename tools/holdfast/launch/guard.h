// A process that does nothing but outlive launch, should launch be killed: it then ends what ranks had started and
// removes launch's temporary folder. (The ranks themselves are ended by the kernel, which knows only direct children.)
#pragma once

#include <sys/types.h>

#include <string>

namespace holdfast::tools {

class Guard {
 public:
  /// `entry` is in the environment of every rank and of nothing else; `folder` is launch's own.
  Guard(std::string entry, std::string folder) : entry_(std::move(entry)), folder_(std::move(folder)) {}
  ~Guard() { stop(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  /// Starts it; again where it was ended. False where no process can be started.
  bool start();
  /// It is not needed any more: launch ends in order.
  void stop();
  pid_t pid() const { return pid_; }
  /// Somebody ended it, and its parent waited for it.
  void is_over() { pid_ = -1; }

 private:
  [[noreturn]] void watch(int launch_lives) const;

  const std::string entry_, folder_;
  pid_t pid_ = -1;
  int held_ = -1;  // the guard sees it close when launch is gone
};

}  // namespace holdfast::tools
