// The content of a journal, and the decisions that follow from it: which session is the latest, which version to
// resume from. The decisions are pure: the same listing gives the same answer, with its reason, on every host.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/object_name.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// A session's place in the order of takeovers: greater means later.
struct SessionOrder {
  std::uint64_t epoch = 0;
  std::string session;
  friend auto operator<=>(const SessionOrder&, const SessionOrder&) = default;
};

struct VersionRef {
  Uid uid;
  SessionOrder order;
  friend bool operator==(const VersionRef&, const VersionRef&) = default;
};

/// One reading of journal/ (and of the names in data/). refresh() adds to it; entries are immutable, so each is read
/// only once.
class History {
 public:
  /// Lists the folders and reads new entries. Torn, unreadable and foreign entries become warnings, not failures: only
  /// a listing that fails is an error.
  Status refresh(const Store& store);
  /// Adds what another place of the same run holds. A place drops its own versions: what `other` dropped is not added,
  /// and what it still holds does not count as dropped here any more.
  void add(const History& other);
  bool has_version(const Uid& uid) const;

  const std::vector<OpenEntry>& opens() const { return opens_; }         // by (epoch, session)
  const std::vector<VersionRef>& versions() const { return versions_; }  // by (epoch, session, seq): oldest first
  const std::vector<Note>& notes() const { return notes_; }              // by uid
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// The highest sequence number of any name in journal/ or data/.
  std::uint64_t highest_seq() const { return highest_seq_; }
  std::uint64_t highest_epoch() const;
  bool is_dropped(const Uid& uid) const;
  /// Sessions with payload in data/, as the first refresh saw it.
  const std::set<std::string>& payload_sessions() const { return payload_sessions_; }

  /// The latest open entry above `mine`, or null. If there is one, `mine` has been superseded.
  const OpenEntry* superseded_by(const SessionOrder& mine) const;

 private:
  void sort();

  std::vector<OpenEntry> opens_;
  std::vector<VersionRef> versions_;
  std::vector<Note> notes_;
  std::vector<std::string> warnings_;
  std::set<std::string> read_;
  std::set<std::string> torn_;  // named in a warning
  std::set<std::string> payload_sessions_;
  std::set<Uid> kept_elsewhere_;
  std::map<std::string, SessionOrder> version_orders_;
  std::uint64_t highest_seq_ = 0;
};

/// Two diagnosed deaths of the same program within this many steps of loading a version condemn it.
inline constexpr std::uint64_t kPoisonSteps = 10;
inline constexpr int kPoisonDeaths = 2;

struct ChooseOptions {
  /// A rewind to "42", "42-7f3a" or a full uid. It counts once: if the last rewind in the journal went to the same
  /// version, the newest version after it is chosen. "again:42" rewinds once more.
  std::optional<std::string> from = std::nullopt;
  bool fresh = false;                 // a start from scratch, once for each job
  std::string job = {};               // of OpenEntry
  std::string program;                // whose deaths count
  std::map<Uid, Status> failed = {};  // versions that this session could not load, and why
};

/// A version passed over, and why.
struct PassedOver {
  Uid uid;
  std::string reason;
};

struct Choice {
  std::optional<VersionRef> version;  // empty: start from scratch
  bool rewind = false;
  std::string reason;                   // one sentence
  bool starting_point_is_used = false;  // `from` or `fresh` was given, and was already followed
  std::vector<PassedOver> passed_over;
};

/// Latest = the newest version of the highest (epoch, session). A session that saved nothing counts as its base if it
/// rewound to one, and as absent otherwise, so that a version which a slower session acknowledged in the meantime is
/// not skipped. Older versions follow the lineage: a session's own, then those up to its base. A dropped version is
/// never chosen; a version that failed to load or was condemned by deaths is passed over for the next older one. A
/// starting point that a restarted command repeats counts once. Errors: `from` names no version (or several); versions
/// exist but none of them can be chosen.
Result<Choice> choose_base(const History& history, const ChooseOptions& options);

/// The versions that the latest session continues, newest first: its own, then those of the sessions before it.
std::vector<VersionRef> latest_line(const History& history);

/// The newest version of each session that no other version here continues, although nobody rewound the run: the ends
/// of lines that were continued apart. The latest session's is not among them. `is_whole`: whether a version can be
/// resumed from; others do not count.
std::set<Uid> ends_of_other_lines(const History& history, const std::function<bool(const Uid&)>& is_whole);

/// Finds the version that "42", "42-7f3a" or a full uid names. Errors list the candidates.
Result<VersionRef> find_version(const History& history, const std::string& text);

}  // namespace holdfast::storage
