// A mirror: a second place that receives copies of a run's versions from its home, such as a mounted Google Drive. A
// version that arrived there resumes on another machine, after the home is lost.
//
// Each place drops its own versions. Open entries and the notes of ends and deaths travel with the versions, so the
// journal of a mirror tells the run's history; attempts, verdicts and drops are about one place and stay there.
//
// Threads: one at a time, but any other than the writer's. The stores must outlive the mirror.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/retention.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/step_runner.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

struct MirrorOptions {
  SessionOrder session;                              // that copies: of its open entry
  Retention retention = {};                          // of the versions in the mirror
  bool is_announced = false;                         // the session's open entry is there already (O4)
  bool drops = true;                                 // M8; false: the mirror keeps whatever it has
  std::function<std::string()> wall_time = nullptr;  // as in OpenRequest
  /// Called with the bytes of each piece that was copied or read back; false cancels the copy.
  std::function<bool(std::uint64_t bytes)> proceed = nullptr;
  StepRunner* steps = nullptr;  // must outlive the mirror; default: steps_in_order()
};

/// What a mirror holds after a copy.
struct MirroredVersion {
  Uid uid;
  std::uint64_t bytes = 0;  // that were copied; payload that was there already is only read back
  std::string durability;   // Mirror::durability()
  Status dropping;          // why older versions may still be there (M8)
  /// The ends of lines that another machine continued apart, while neither knew of the other. They are kept there.
  std::set<Uid> other_lines = {};
};

class Mirror {
 public:
  Mirror(const Store& home, Store& far, MirrorOptions options);

  /// Makes the mirror's folders and publishes this session's open entry there, before anything else of it.
  /// `superseded`: a later session has opened the run there. `invalid`: the mirror is the home itself, or another
  /// mirror of this session, by another name.
  Status open();

  /// Copies a version that home holds: M1–M8. Ok means that the mirror holds it, read back with all digests, whatever
  /// its durability covers. `not_found`: home has dropped it. `corrupt`: home's copy is damaged. `superseded` as above.
  /// After any other failure the same call may be repeated; what was copied completely is kept.
  Result<MirroredVersion> copy(const Uid& uid);

  /// Copies what the mirror lacks of a session that is over: the note of its end, metrics and logs. Call it when
  /// nothing appends to them any more.
  Status copy_records();

  /// What the mirror guarantees for its versions: "process-safe" | "fsynced".
  std::string durability() const;
  /// The versions that the mirror held when it was last listed.
  std::vector<Uid> versions() const;

 private:
  Status check_not_superseded();
  Status send_entries();
  Status copy_payload(const Manifest& manifest, std::map<std::string, std::uint64_t>& copied);
  Status read_back(const Manifest& manifest, std::string& damaged) const;
  Status copy_whole(const std::string& name, std::uint64_t bytes, const Digest* expected);
  Status retain(const Uid& arrived, std::set<Uid>& other_lines);
  bool proceeds(std::uint64_t bytes) const { return !options_.proceed || options_.proceed(bytes); }

  const Store& home_;
  Store& far_;
  MirrorOptions options_;
  StepRunner& steps_;
  bool is_open_ = false;
  History history_;              // of the mirror
  std::set<std::string> known_;  // entries of home that need not be sent
};

}  // namespace holdfast::storage
