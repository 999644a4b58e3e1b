// What something outside the loop (a signal, a clock, a call) asks for at a step's end, as the reason to give, which
// the manifest and the console repeat.
#pragma once

#include <string>

namespace holdfast {

struct StepOrder {
  std::string stop = {};  // save and stop: "SIGTERM"; empty: nothing asks for it
  std::string save = {};  // save and go on: "SIGUSR1"
  bool empty() const { return save.empty() && stop.empty(); }
  friend bool operator==(const StepOrder&, const StepOrder&) = default;
};

}  // namespace holdfast
