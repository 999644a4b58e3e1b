// When to save and when to stop: a pure function of where the run stands, what was saved last and what was asked for.
// It gives its reason, which the manifest and the console repeat.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/runtime/policy/step_order.h"

namespace holdfast {

/// What is due periodically; zero is never. Several at a time each count on their own.
struct SaveEvery {
  std::uint64_t steps = 0;  // at every step number that this divides
  std::uint64_t epochs = 0;
  std::chrono::nanoseconds time{0};  // since the last save

  friend bool operator==(const SaveEvery&, const SaveEvery&) = default;
};

/// "500", "500steps", "10min", "30s", "1.5h", "1epoch", "500,10min", "never". Throws Error(invalid) with a sentence
/// that quotes the part which is wrong.
SaveEvery parse_save_every(std::string_view text);
/// "500 steps, 10 min", "never".
std::string to_string(const SaveEvery& every);

/// A place between two steps.
struct Boundary {
  std::uint64_t step = 0;    // steps done over the whole run
  std::uint64_t epochs = 0;  // epochs done, bodies included
  std::chrono::steady_clock::time_point now;
  bool last = false;             // a loop that is in no other one's body is over
  bool one_of_several = false;   // another such loop came before it, so others may follow
  std::uint64_t boundaries = 0;  // passed in this process, this one included
};

/// The newest version of this run; before the first one, where and when the session began.
struct LastSave {
  std::uint64_t step = 0;
  std::uint64_t epochs = 0;
  std::chrono::steady_clock::time_point time;
  std::uint64_t boundaries = 0;
};

struct SaveDecision {
  bool save = false;
  bool stop = false;   // start no further step
  bool hold = false;   // keep the state in memory: this may be the program's last boundary
  std::string reason;  // of the save, or of the stop where nothing is left to save; empty where neither is due
};

/// - A request to save is always met; all other saves need a position that is not the last save's.
/// - A request to stop saves and stops, except at the last boundary: a complete run has nothing to come back for.
/// - The end of the program's first loop saves: "end". Ends of later ones are held in memory where nothing else is due,
///   since a program may have thousands of short loops; what is held last is written by finish().
/// - A number of steps or epochs is due where a multiple of it lies in (last save, here]: versions stay at round
///   numbers whatever was saved in between.
SaveDecision decide(const SaveEvery& every, const Boundary& here, const LastSave& last, const StepOrder& requests);

}  // namespace holdfast
