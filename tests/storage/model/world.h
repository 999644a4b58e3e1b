// A run on a virtual store with some writers, each the product's own RunWriter with a small program, and what must hold
// in every state that any schedule of them can reach.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

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

/// What a scenario starts from; the same for all its schedules.
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
  /// Resumes the writer until just before its next operation that can meet another's.
  void step(std::size_t writer);
  /// The writer's process dies before that operation.
  void kill(std::size_t writer);

  /// Store, and for each writer what it has learnt and been told; equal fingerprints have equal futures.
  Fingerprint fingerprint() const;

  /// The promises, with all writers dead from now on. Sentences that say what is broken; empty when all hold.
  ///
  /// 1. No acknowledged work is lost. Whoever opens the run now goes on from a version that verifies and whose work
  /// holds
  ///    every acknowledged save, except those that a deliberate rewind left behind: for the highest open entry that
  ///    rewinds, the saves of lower sessions that are not in the work it rewound to. (A rewind counts from its open
  ///    entry on, as a takeover does: also where its session died before its first save, or lost the run at once. One
  ///    without an acknowledged save that lost the run, or whose base is being dropped, may also not count.) This
  ///    covers takeover (a save that the old session acknowledged before it could see the new one is in the new one's
  ///    base) and retention (a dropped version's work lives on in its descendants).
  /// 2. That open works, its save is acknowledged, and the next choice is that save.
  /// 3. A stale writer never acknowledges: at the moment of an acknowledgement no higher open entry exists. Its save
  /// says
  ///    `superseded`, in a sentence that names who owns the run, and so do all later ones; and no writer hears that
  ///    unless a higher open entry exists.
  /// 4. Until its first save, or until it is superseded, an opened session's base verifies.
  /// 5. No number is drawn that a listing has shown, and no name is created twice.
  /// 6. Nothing else fails.
  ///
  /// `known_good` remembers what of this depends on few things, so that a search asks it once.
  std::vector<std::string> broken_promises(std::unordered_set<Fingerprint, FingerprintHash>& known_good);

  /// Labels of the protocol steps performed so far, one list for each protocol run, for whoever plans faults.
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

/// Appends a save's number to work and saves it. The number is `session`'s first digit and how many it has saved.
Result<SavedVersion> save_work(RunWriter& hold, Work& work, std::uint32_t item);
/// Opens the run and loads its work.
Result<std::unique_ptr<RunWriter>> open_work(Store& store, OpenRequest request, Work& work);

}  // namespace holdfast::storage::model
