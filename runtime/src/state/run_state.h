// RunState: what a run tracks, and how it is captured at a boundary, compared with a version and brought back.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "holdfast/runtime/state/tracked_state.h"
#include "holdfast/storage/readers/version_reader.h"
#include "state/compatibility.h"
#include "state/rank_names.h"
#include "state/snapshot.h"

namespace holdfast {

/// What a restore has to say besides that it worked.
struct Restored {
  std::vector<std::string> notes;  // sentences: options where the code wins, what was allowed to be missing, …
};

/// A tracked item, and the user's variable that it refers to.
struct TrackedVariable {
  std::string name;
  const void* address = nullptr;  // null where what is tracked is kept alive here
};

class TensorFeed;

class RunState : public TrackedState {
 public:
  /// Of one rank of several: its own share of what ranks hold differently is saved and restored.
  explicit RunState(const RankPlace& place = {});

  /// In the order they were tracked, without the parts of objects.
  std::vector<TrackedVariable> variables() const;
  bool tracks(const std::string& name) const;
  bool tracks(const torch::nn::Module& module) const;
  bool tracks(const torch::optim::Optimizer& optimizer) const;
  /// From here on tensors that no tracked optimizer holds are watched for gradients.
  void watch_gradients();
  /// Tracked modules and tensors that were given gradients since, so that their optimizer was forgotten; none where
  /// that cannot be told. Ends the watch.
  std::vector<std::string> without_optimizer();
  /// Whether a module, an optimizer, a tensor or an object with save() is tracked: else no parameter can be.
  bool may_hold_parameters() const;

  /// The run's first step is next and nothing was restored: checks that everything can be saved, and takes flags and
  /// the optimizers' options as they are now as the values the code gave. restore() does so too.
  void begin();

  /// Throws Error (unsupported, invalid) for what cannot be saved, in a sentence that names it.
  Snapshot capture() const;
  /// Digests of the states of the generators that the program tracks, by name.
  std::map<std::string, std::string> generators() const;

  /// Compares; changes nothing. Throws Error only for what capture() would throw for.
  Compatibility check(const storage::Manifest& manifest, const LoosenOptions& loosen = {}) const;

  /// Checks, and throws Error (misfit) with every difference before anything is overwritten. Then reads tensors
  /// straight into their own memory where they are contiguous on the CPU (others go through a staging buffer of at most
  /// 256 MB or one tensor). Optimizer state, values, generators and user types follow only after every digest was
  /// right. When it throws after reading has begun, tensors hold unspecified values: restore another version, or stop.
  Restored restore(const storage::VersionReader& version, const LoosenOptions& loosen = {},
                   const storage::ReadOptions& options = {});
  /// The same with another source of the tensors' bytes (tensor_feed.h).
  Restored restore(const storage::Manifest& manifest, const LoosenOptions& loosen, TensorFeed& feed);
};

}  // namespace holdfast
