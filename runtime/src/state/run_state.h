// RunState: what a run tracks. It is captured at a boundary, compared with a version, and restored.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "holdfast/runtime/state/tracked_state.h"
#include "holdfast/storage/readers/version_reader.h"
#include "snapshot/compatibility.h"
#include "snapshot/rank_names.h"
#include "snapshot/snapshot.h"

namespace holdfast {

/// The report of a successful restore.
struct Restored {
  std::vector<std::string> notes;  // sentences: options where the code wins, what was allowed to be missing, …
};

/// A tracked item, and the user's variable that it refers to.
struct TrackedVariable {
  std::string name;
  const void* address = nullptr;  // null if TrackedState keeps the tracked object alive
};

class TensorFeed;

class RunState : public detail::TrackedState {
 public:
  /// The state of one rank: of rank-local state, the rank's own share is saved and restored.
  explicit RunState(const RankPlace& place = {});

  /// In the order they were tracked, without the parts of objects.
  std::vector<TrackedVariable> variables() const;
  bool tracks(const std::string& name) const;
  bool tracks(const torch::nn::Module& module) const;
  bool tracks(const torch::optim::Optimizer& optimizer) const;
  /// From now on watches tensors that no tracked optimizer holds for gradients.
  void watch_gradients();
  /// Tracked modules and tensors that received gradients since then, so that their optimizer is not tracked; none if
  /// that cannot be determined. Ends the watch.
  std::vector<std::string> without_optimizer();
  /// Whether a module, an optimizer, a tensor or an object with save() is tracked: otherwise no parameter can be
  /// tracked.
  bool may_hold_parameters() const;

  /// Call before the run's first step if nothing was restored: checks that everything can be saved, and records the
  /// current flags and optimizer options as the values that the code gave. restore() also records them.
  void begin();

  /// Throws Error (unsupported, invalid) for what cannot be saved, in a sentence that names it.
  Snapshot capture() const;
  /// Digests of the states of the generators that the program tracks, by name.
  std::map<std::string, std::string> generators() const;

  /// Compares; changes nothing. Throws Error only for what capture() would throw for.
  Compatibility check(const storage::Manifest& manifest, const LoosenOptions& loosen = {}) const;

  /// Checks, and throws Error (misfit) with every difference before anything is overwritten. Then reads tensors
  /// directly into their own memory if they are contiguous on the CPU (others go through a staging buffer of at most
  /// 256 MB or one tensor). Optimizer state, values, generators and user types follow only after every digest was
  /// verified. If it throws after reading has begun, tensors hold unspecified values: restore another version, or stop.
  Restored restore(const storage::VersionReader& version, const LoosenOptions& loosen = {},
                   const storage::ReadOptions& options = {});
  /// Restores from another source of the tensors' bytes (tensor_feed.h).
  Restored restore(const storage::Manifest& manifest, const LoosenOptions& loosen, TensorFeed& feed);
};

}  // namespace holdfast
