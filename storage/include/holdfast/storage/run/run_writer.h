// One session's write access to one run: opens it, saves versions, prunes them. open_run.cc, save_version.cc and
// prune_versions.cc list the protocols' numbered steps above the code; FORMAT.md gives the reason for each.
//
// Threads: one at a time. The store must outlive the writer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/payload.h"
#include "holdfast/storage/run/retention.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/step_runner.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// Another place of the run: a mirror, or the output of an earlier session. The writer reads it while it opens the run
/// and in read().
struct OtherPlace {
  const Store* store = nullptr;  // must outlive the writer
  Status reached = {};           // why it cannot be read now, if the caller knows
  Store* mirror = nullptr;       // the same, if it receives copies: our open entry is announced there (O4)
};

struct OpenRequest {
  std::string run;      // its name, for manifests and messages
  std::string session;  // random_session_id()
  std::string host;
  std::int64_t pid = 0;
  std::string platform;
  std::string program;                             // identifies the build, so that only its own deaths count
  std::optional<std::string> from = std::nullopt;  // as in ChooseOptions
  bool fresh = false;
  std::string job = {};
  bool take_over = false;  // start although a living process of this host holds the run
  /// In the order of preference. Versions are looked for at all of them (O1), and saved only at home.
  std::vector<OtherPlace> others = {};
  /// Loads a version into the program (O3). `misfit` ends the opening, as does a failure that may pass (is_permanent())
  /// after three attempts; `corrupt` and `incomplete` pass the version over. Must not change the program before the
  /// version is known to be compatible. May be called more than once.
  std::function<Status(const VersionReader&)> load;
  /// Receives each decision, one sentence each.
  std::function<void(const std::string&)> say;
  /// The writer's clocks: RFC 3339 UTC for entries, monotonic seconds for costs. Defaults: the system's clocks.
  std::function<std::string()> wall_time;
  std::function<double()> seconds;
  /// Waits before a base that could not be read is tried again. Default: sleeps.
  std::function<void(double seconds)> pause = nullptr;
  /// Performs the protocols' steps; must outlive the writer. Default: steps_in_order().
  StepRunner* steps = nullptr;
};

/// Everything about a version except its tensors.
struct SaveRequest {
  std::string reason;
  Position position;
  nlohmann::json metrics = nlohmann::json::object();
  nlohmann::json values = nlohmann::json::object();
  nlohmann::json made_by = nlohmann::json::object();
  std::vector<TensorSource> tensors;
  std::map<std::string, std::string> tied;
  /// Called when everything about the version is known and before anything is published: any result but ok voids the
  /// version (S3).
  std::function<Status(const Manifest&)> inspect = nullptr;
};

struct SavedVersion {
  Uid uid;
  std::uint64_t bytes = 0;  // payload and manifest
  std::string durability;
  double seconds = 0;
  std::uint64_t non_finite = 0;                      // how many numbers of its tensors are NaN or infinite
  std::vector<std::string> non_finite_tensors = {};  // the names of the first few tensors that have them
};

class RunWriter {
 public:
  /// Opens the run for writing (O1–O5). Creates it if it does not exist.
  static Result<std::unique_ptr<RunWriter>> open(Store& store, const OpenRequest& request);

  const Uid& uid() const { return open_.uid; }  // of the open entry: names this session's metrics and log
  SessionOrder order() const;                   // this session's place in the order of takeovers
  const std::optional<Uid>& base() const { return open_.base; }
  const Choice& choice() const { return choice_; }
  const History& history() const { return history_; }
  /// The place that the base was loaded from; null if there is no base.
  const Store* base_place() const { return base_place_; }
  /// Whether the journal of this other place was read when the run was opened.
  bool was_read(const Store& place) const;
  /// Opens a version where it can be read: at home, else at the other places.
  Result<VersionReader> read(const Uid& uid) const;

  /// S1–S8. Ok means acknowledged: the version survives what its durability class covers. `superseded`: a later session
  /// owns the run, and every later call returns this too. `unknown`: published, but its name could not be made durable.
  /// Anything else: the version is void and the next save uses a new number.
  Result<SavedVersion> save(SaveRequest request);

  /// Plans retention and removes the dropped versions: P1–P5. Returns them. Reports which version is kept longer
  /// because those after it hold NaN or infinities. `in_use`: versions that are kept now, because they are read.
  Result<std::vector<Uid>> prune(const Retention& retention, const std::set<Uid>& in_use = {});
  /// Removes these versions: P2–P5. `invalid` for the newest acknowledged one, or for this session's base before
  /// its first save.
  Status drop(const std::vector<Uid>& versions, const std::string& reason);
  /// Removes payload and temporary files left by sessions that our open entry closed.
  Result<std::size_t> remove_orphans();

  /// Writes a note of this session. A close note ends the session: call nothing afterwards.
  Status note(NoteKind kind, const std::vector<Uid>& about, const std::string& reason, nlohmann::json details);
  /// A note about the base with its own number, for arm_death_note().
  Note prepare_death_note();

 private:
  RunWriter(Store& store, const OpenRequest& request);
  Uid next_uid();
  Status take_lock(const OpenRequest& request);
  Status choose(ChooseOptions& options);                                                        // O1
  Status note_attempt();                                                                        // O2
  Status load_base(const OpenRequest& request, ChooseOptions& options, bool& again);            // O3
  Status load_from(const Store& place, const OpenRequest& request);                             // O3
  Status create_open();                                                                         // O4
  Status confirm_base(ChooseOptions& options, bool& again);                                     // O5
  Status describe(SaveRequest& request, std::vector<PayloadTable> tables, Manifest& manifest);  // S3
  Status check_not_superseded();                                                                // S7, P3
  Status check_not_superseded_in(const History& history);
  void sign(Note& note);
  Status publish_note(Note note, bool durable);
  std::uint64_t non_finite_of(const Uid& uid);

  struct Searched {
    OtherPlace place;
    History history = {};
    bool was_read = false;
    bool is_reported = false;  // that it cannot be read
  };
  Result<Choice> choose_among_all(ChooseOptions& options);
  std::vector<const Store*> places_of(const Uid& uid) const;
  std::optional<Uid> left_behind(const ChooseOptions& options) const;
  Status announce(const std::string& name, const std::string& text);  // O4

  Store& store_;
  std::vector<Searched> others_;
  std::map<Uid, std::set<const Store*>> tried_;  // places that a version was loaded from
  StepRunner& steps_;
  std::string run_;
  std::string program_;
  std::function<std::string()> wall_time_;
  std::function<double()> seconds_;
  std::function<void(double)> pause_;
  std::function<void(const std::string&)> say_;
  OpenEntry open_;
  Choice choice_;
  const Store* base_place_ = nullptr;
  History history_;  // of the home
  History known_;    // of all places, when the run was opened
  std::unique_ptr<HostLock> lock_;
  std::uint64_t last_seq_ = 0;
  std::optional<Uid> newest_;  // the newest acknowledged version of this session, else its base
  bool saved_ = false;
  std::set<Uid> doubtful_;
  std::optional<Status> ended_;
  std::map<Uid, std::uint64_t> non_finite_;  // a cache by version, so that each manifest is read once
  std::optional<Uid> kept_finite_;           // the kept version that prune() last reported
  nlohmann::json previous_cost_ = nlohmann::json::object();
};

}  // namespace holdfast::storage
