// A run on a virtual store with some writers, each the product's own RunWriter with a small program, and the promises
// that must hold in every state that any schedule of them can reach.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "faulty_steps.h"
#include "fiber.h"
#include "holdfast/storage/run/run_writer.h"
#include "stepped_store.h"

namespace holdfast::storage::model {

enum class Action { save, prune, remove_orphans };

/// What one writer does after it has opened the run.
struct Program {
  std::string session;
  std::vector<Action> actions;
  std::optional<std::size_t> rewind_to;  // which of the versions acknowledged by then, counted from 0, else the last
  std::size_t keep_last = 1;
};

struct Scenario {
  std::string name;
  std::size_t versions_before = 2;  // acknowledged by a session that is gone when the writers start
  std::vector<Program> writers;
};

/// An acknowledged save.
struct Acknowledged {
  SessionOrder order;
  std::uint32_t item = 0;
  Uid uid;
};

/// The initial state of a scenario, common to all its schedules.
struct Beginning {
  Image image;
  std::vector<Acknowledged> acknowledged;
  std::vector<std::string> wrongs;
};
Beginning begin(const Scenario& scenario);

class World {
 public:
  World(const Scenario& scenario, const Beginning& beginning, const Fault& fault);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  std::size_t writers() const { return writers_.size(); }
  bool finished(std::size_t writer) const;
  /// What the writer will do when it is resumed.
  const std::string& next(std::size_t writer) const;
  /// Resumes the writer until just before its next operation that can conflict with another's.
  void step(std::size_t writer);
  /// The writer's process dies before that operation.
  void kill(std::size_t writer);

  /// The store, and for each writer what it has learnt and the results of its calls; equal fingerprints have equal
  /// futures.
  Fingerprint fingerprint() const;

  /// Checks the promises, with all writers dead from now on. One sentence for each broken promise; empty if all hold.
  ///
  /// 1. No acknowledged work is lost. A session that opens the run now resumes from a version that verifies and whose
  ///    work holds every acknowledged save, except those that a deliberate rewind abandoned: for the highest open entry
  ///    that rewinds, the saves of lower sessions that are not in the work it rewound to. (A rewind counts from its
  ///    open entry on, as a takeover does, even if its session died before its first save, or lost the run at once. A
  ///    rewind without an acknowledged save that lost the run, or whose base is being dropped, may also not count.)
  ///    This covers takeover (a save that the old session acknowledged before it could see the new one is in the new
  ///    one's base) and retention (a dropped version's work is in its descendants).
  /// 2. That open works, its save is acknowledged, and the next choice is that save.
  /// 3. A stale writer never acknowledges: at the moment of an acknowledgement no higher open entry exists. Its save
  ///    returns `superseded`, in a sentence that names the owner of the run, and so do all later ones. A writer gets
  ///    this result only if a higher open entry exists.
  /// 4. Until its first save, or until it is superseded, an opened session's base verifies.
  /// 5. No number is drawn that a listing has shown, and no name is created twice.
  /// 6. Nothing else fails.
  ///
  /// `known_good` caches the checks that depend on little state, so that a search makes each of them once.
  std::vector<std::string> broken_promises(std::unordered_set<Fingerprint, FingerprintHash>& known_good);

  /// Labels of the protocol steps performed so far, one list for each protocol run, for planning faults.
  const std::set<std::vector<std::string>>& protocols() const { return protocols_; }

  /// How the writers ended, for counting what a scenario covers: acknowledged, superseded, killed.
  std::size_t acknowledged() const { return acknowledged_.size(); }
  std::size_t superseded() const;

 private:
  struct Writer;
  void live(Writer& writer);
  void save(Writer& writer, RunWriter& run);
  void forget_the_way(Writer& writer, const RunWriter& run);
  bool may_meet(const Writer& writer, Meeting what) const;
  void wrong(const Writer& writer, const std::string& what);
  bool is_superseded(const SessionOrder& order) const;
  std::vector<std::string> lost_work(const Work& found, const std::set<SessionOrder>& without_rewinds = {}) const;
  std::vector<std::string> try_to_go_on() const;
  std::vector<std::string> missing_bases() const;

  std::shared_ptr<Image> image_;
  std::vector<std::unique_ptr<Writer>> writers_;
  std::vector<Acknowledged> acknowledged_;
  std::vector<std::string> wrongs_;
  std::set<std::vector<std::string>> protocols_;
};

}  // namespace holdfast::storage::model
