// A process whose only purpose is to outlive launch if launch is killed: it then ends the processes that ranks had
// started and removes launch's temporary folder. (The kernel ends the ranks themselves; it handles direct children
// only.)
#pragma once

#include <sys/types.h>

#include <string>

namespace holdfast::tools {

class Guard {
 public:
  /// `entry` is in the environment of every rank and of nothing else; `folder` is launch's temporary folder.
  Guard(std::string entry, std::string folder) : entry_(std::move(entry)), folder_(std::move(folder)) {}
  ~Guard() { stop(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  /// Starts the process, also again after it was ended. False if no process can be started.
  bool start();
  /// Ends the process when launch ends normally and no longer needs it.
  void stop();
  pid_t pid() const { return pid_; }
  /// Call after another process ended it and its parent has waited for it.
  void is_over() { pid_ = -1; }

 private:
  [[noreturn]] void watch(int launch_lives) const;

  const std::string entry_, folder_;
  pid_t pid_ = -1;
  int held_ = -1;  // the guard sees it close when launch ends
};

}  // namespace holdfast::tools
