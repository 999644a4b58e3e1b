// What a session found when it opened its run: the version that it restored, and how far the resume is exact.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "state/run_state.h"

namespace holdfast {

struct RestoreOutcome {
  bool opened = false;
  bool has_base = false;  // a version was restored
  Restored state;
  std::vector<std::string> not_exact;  // what keeps the resume from being bit-exact
  bool ranks_changed = false;
  std::uint64_t step = 0;         // of the version; 0: a new run
  std::uint64_t boundaries = 0;   // passed in this process when it was restored
  std::string steps_lost;         // a sentence on the steps that the earlier session did not save
  std::set<std::string> waiting;  // names in the checkpoint that are not tracked yet
  bool tracks_late = false;       // something was tracked since the version was restored
};

}  // namespace holdfast
