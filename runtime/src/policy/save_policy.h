// When to save and when to stop: a pure function of the run's position, its last save and the requests. It gives its
// reason, which the manifest and the console repeat.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "holdfast/runtime/policy/save_every.h"
#include "policy/stop_request.h"

namespace holdfast {

/// A place between two steps.
struct Boundary {
  std::uint64_t step = 0;    // steps done over the whole run
  std::uint64_t epochs = 0;  // epochs done, bodies included
  std::chrono::steady_clock::time_point now;
  bool last = false;             // a top-level loop is over
  bool one_of_several = false;   // other top-level loops came before, so others may follow
  std::uint64_t boundaries = 0;  // passed in this process, this one included
};

/// Position and time of this run's newest version; before the first one, those of the session's beginning.
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
  std::string reason;  // of the save, or of the stop if nothing is left to save; empty if neither is due
};

/// - A save request always saves; all other saves need a position that differs from the last save's.
/// - A stop request saves and stops, except at the last boundary, because a complete run needs no resume.
/// - The end of the program's first loop saves: "end". Ends of later loops are held in memory if nothing else is due,
///   because a program may have thousands of short loops; finish() writes the last held one.
/// - A number of steps or epochs is due if a multiple of it lies in (last save, here]: versions stay at round numbers
///   regardless of saves in between.
SaveDecision decide(const SaveEvery& every, const Boundary& here, const LastSave& last, const StopRequest& requests);

}  // namespace holdfast
