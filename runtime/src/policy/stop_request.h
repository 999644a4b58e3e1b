// A request from outside the loop (a signal, a clock, a call) for a step's end. It holds the reason, which the manifest
// and the console repeat.
#pragma once

#include <string>

namespace holdfast {

struct StopRequest {
  std::string stop = {};  // save and stop: "SIGTERM"; empty: not requested
  std::string save = {};  // save and continue: "SIGUSR1"
  bool empty() const { return save.empty() && stop.empty(); }
  friend bool operator==(const StopRequest&, const StopRequest&) = default;
};

}  // namespace holdfast
