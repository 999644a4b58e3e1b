// What a session knows of its saves: the newest version, the requests and the failures since then.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "checkpoint/non_finite_counts.h"
#include "holdfast/storage/formats/manifest.h"
#include "policy/save_policy.h"
#include "snapshot/snapshot.h"

namespace holdfast {

struct SaveState {
  LastSave last;
  std::string version;                 // the last one, as text for users
  std::optional<storage::Uid> newest;  // rank 0's: the version that was restored or saved last
  int count = 0;                       // versions that this session saved

  nlohmann::json metrics = nlohmann::json::object();  // for the next version
  bool requested = false;                             // by session.save_now()
  int failures = 0;                                   // in a row
  std::chrono::steady_clock::time_point next_attempt;

  NonFiniteCounts non_finite;        // of the last version; without one, of the state at the run's beginning
  std::string refused;               // why the state at this boundary is not saved but rolled back
  bool stops_at_non_finite = false;  // the last version has new NaN or infinite numbers, and the run ends with it
  std::string version_before;        // with stops_at_non_finite: the version before; empty: none

  // The state at the end of the last loop, if it was not saved: finish() writes it, because the tracked objects may be
  // gone by then.
  std::optional<Snapshot> held;
  std::string held_reason;
};

}  // namespace holdfast
