// A run's progress: steps, samples, and the position of each loop of the program, with the loops inside its body. It is
// tracked like any other state, under a name of its own, so that it is saved and checked together with everything else.
//
// A loop is identified by its place: it is the n-th that the program begins in its scope. The program is a scope, and
// so are the body of a step and the body of an epoch while they run. JSON:
//
//   {"step": 7, "samples": 448, "loops": [position, …], "loaders": {"0": loader state, …},
//    "later": ["name", …],   objects tracked after the first loop had begun
//    "rollbacks": {"total": 2, "skipped": 150, "at": 700, "in_a_row": 1}}   if there were any
//   position: {"kind": "count", "done": 3} | {"kind": "loader", "done": 3, "first_epoch": 0, "loader": loader state}
//             | {"kind": "batches", …} as with a loader, which counts the program's own batches
//             | {"kind": "save_now"}, with
//     "here": true             the version was made at this loop's boundary
//     "over": "left" | "done"  the program left the loop and continued, or ended it by session.done()
//     "step_body", "epoch_body": [position, …] of the loops inside
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast {

namespace detail {
class LoaderBase;
}
struct LoopPosition;

/// The loops that begin in one scope, in that order.
struct LoopScope {
  std::vector<std::shared_ptr<LoopPosition>> loops;
  nlohmann::json saved = nlohmann::json::array();  // positions of the checkpoint, also those of loops to come

  nlohmann::json state(const LoopPosition* here) const;
};

struct LoopPosition {
  enum class Kind { counted, over_loader, over_batches, save_now };
  enum class Over { no, left, done };

  Kind kind = Kind::counted;
  detail::LoaderBase* loader = nullptr;  // null: a counted loop, or a loop that is over
  std::uint64_t target = 0;              // epochs or steps
  std::uint64_t first_epoch = 0;         // the loader's epoch when the loop first began
  std::uint64_t done = 0;                // steps of this loop, over all sessions of the run
  bool nested = false;                   // epochs() rather than steps()

  Over over = Over::no;
  std::uint64_t id = 0;     // of the loop's place; the same in each session
  bool has_saved = false;   // the checkpoint has a position for it
  bool saved_here = false;  // the checkpoint was made at a boundary of this loop
  bool in_step = false;
  bool in_epoch = false;
  std::uint64_t epoch = 0;  // the last one that epochs() began
  LoopScope step_body;
  LoopScope epoch_body;
  nlohmann::json last_loader;  // the loader's state when the loop was over

  /// Whether a loader holds the position; with over_batches, one that counts the program's own batches.
  bool has_loader() const { return kind == Kind::over_loader || kind == Kind::over_batches; }
  /// Whether no further iteration begins.
  bool at_end() const;
  /// As at_end(), but correct also right after a step, when the loader has not ended its epoch yet.
  bool is_complete() const;
  /// The loop's end: the loader may be destroyed from now on.
  void close(Over how);
  nlohmann::json state(const LoopPosition* here) const;
  void set_state(const nlohmann::json& saved);
};

/// Counts of rollbacks, which happen when numbers became NaN or infinite.
struct Rollbacks {
  std::uint64_t total = 0;
  std::uint64_t skipped = 0;   // steps
  std::uint64_t at = 0;        // the step of the last rollback
  std::uint64_t in_a_row = 0;  // rollbacks without a version in between, the last one included
};

struct Progress {
  static constexpr const char* kName = "holdfast";  // it is tracked under this name

  Progress();

  std::uint64_t step = 0;        // completed: iterations of innermost loops
  std::uint64_t samples = 0;     // that loops of loaders consumed
  std::uint64_t epoch = 0;       // of the loader that was used last
  std::uint64_t boundaries = 0;  // in this process, of all loops
  Rollbacks rollbacks;
  std::vector<std::shared_ptr<LoopPosition>> open;  // loops that run, the innermost last

  nlohmann::json state() const;
  /// Throws Error(misfit) if a loop that this program has begun cannot have the saved position of its place.
  void check_state(const nlohmann::json& state) const;
  void set_state(const nlohmann::json& state);

  /// Begins a loop in the innermost body that runs; resume() then finds its saved position. Throws Error(invalid) if it
  /// cannot begin there.
  std::shared_ptr<LoopPosition> begin(LoopPosition loop);
  /// Moves the loop to its saved position, if there is one. Returns a sentence on differences; usually empty.
  std::string resume(LoopPosition& loop);
  /// Whether the top-level loop that began last is over a loader.
  bool is_over_loader() const {
    return !program_.loops.empty() && program_.loops.back()->kind == LoopPosition::Kind::over_loader;
  }
  /// The loop is over, and so are the loops inside it.
  void end(const LoopPosition& loop, LoopPosition::Over how);
  /// This is a boundary of `loop`: a version that is saved now is made in that loop.
  void mark(const std::shared_ptr<LoopPosition>& loop);

  /// The epoch of the innermost loop that has a loader; if none runs, that of the last one.
  std::uint64_t current_epoch() const;
  /// Whether the body of a step that will be counted runs.
  bool in_step() const { return !open.empty() && open.back()->in_step && open.back()->step_body.loops.empty(); }
  bool is_top_level(const LoopPosition& loop) const { return !open.empty() && open.front().get() == &loop; }
  std::size_t top_level_loops() const { return program_.loops.size(); }
  /// Whether the loop that the program began last at top level was left before its end.
  bool ends_in_left_loop() const;
  /// The program ends there: the next start continues in that loop.
  void reopen_left_loop();
  /// `name` is tracked after the run was opened.
  void note_later(const std::string& name) { later_.insert(name); }
  /// These names in a version.
  static std::vector<std::string> later_names(const storage::Manifest& manifest);
  /// State is being loaded again in the same process: the progress stays as it is.
  bool loads_again = false;

 private:
  LoopScope& scope();
  std::uint64_t number_of(const detail::LoaderBase& loader) const;

  LoopScope program_;
  std::weak_ptr<LoopPosition> here_;
  // The state of loaders whose loops are over; later loops may continue with them.
  std::map<std::uint64_t, std::pair<std::weak_ptr<void>, nlohmann::json>> loaders_;  // by number_of()
  nlohmann::json saved_loaders_ = nlohmann::json::object();
  std::set<std::uint64_t> used_loaders_;
  std::set<std::string> later_;
  std::uint64_t first_loader_;  // LoaderBase::number() of the first loader made in this session
};

}  // namespace holdfast
