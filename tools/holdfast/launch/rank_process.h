// Starts the process of one rank.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace holdfast::tools {

struct RankProcess {
  std::vector<std::string> program;      // with its arguments
  std::vector<std::string> environment;  // "NAME=value"
  int in = 0, out = 1, err = 2;          // descriptors that become the rank's standard input, output and error
  int listening = -1;                    // the only other descriptor that it inherits from launch; -1: none
  bool own_group = true;                 // a process group of its own, so that a terminal's Ctrl-C does not reach it
  sigset_t signal_mask{};
};

struct StartedRank {
  pid_t pid = -1;
  int error = 0;  // errno if no process was started
};

/// The kernel kills the process when the calling thread ends, for whatever reason.
StartedRank start(const RankProcess& rank);

}  // namespace holdfast::tools
