// What tracked items fill when a version is compared or restored.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "snapshot/compatibility.h"
#include "snapshot/rank_names.h"
#include "tensors/load_target.h"
#include "tensors/tensor_form.h"
#include "tensors/tensor_names.h"

namespace holdfast {

/// Compares what is tracked with a manifest and collects the actions of a restore; building a plan changes nothing.
class RestorePlan {
 public:
  RestorePlan(const storage::Manifest& manifest, const LoosenOptions& loosen, const TensorNames& names,
              const RankPlace& place = {}, std::set<const void*> parameters = {});

  const storage::Manifest& manifest() const { return manifest_; }
  const TensorNames& names() const { return names_; }

  const RankPlace& place() const { return place_; }
  /// The number of ranks that made the version.
  int saved_ranks() const { return saved_world_size(manifest_); }
  /// Whether `name` was rank-local and the number of ranks has changed: then no rank can continue what a saved rank
  /// held.
  bool is_of_other_ranks(const std::string& name) const;
  /// The seed for a generator whose saved stream cannot be continued, from the run's seed, its step, this rank and the
  /// name.
  std::uint64_t fresh_seed(const std::string& name) const;

  /// The checkpoint's tensor of this name, which counts as expected from now on; null if there is none (not reported).
  /// If ranks differed, it is the tensor of `rank`, by default this rank's.
  const storage::TensorEntry* find_tensor(const std::string& name, std::optional<int> rank = {});
  /// Like find_tensor(), but null counts as missing; `what` describes the program's side.
  const storage::TensorEntry* need_tensor(const std::string& name, const std::string& what,
                                          std::optional<int> rank = {});
  const nlohmann::json* find_value(const std::string& name, std::optional<int> rank = {});
  /// Whether `name` is a tensor variable that was saved while it was undefined.
  bool was_undefined(const std::string& name);
  /// The decoded value of a tracked object, reported as missing if there is none.
  std::optional<nlohmann::json> need_value(const std::string& name, const std::string& what);

  /// Adds a difference unless the entry has the tensor's shape and dtype, or the tensor may stay as it is.
  bool matches(const std::string& name, const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Whether a variable of another shape or dtype is assigned a tensor like the entry's; otherwise it stays, with a
  /// note.
  bool takes_other_form(const std::string& name, const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Whether the tensor of that name takes the entry's shape and dtype in place, because it has another and its owner
  /// is resizable.
  bool resizes(const std::string& name) const { return resizing_.contains(name); }
  /// Whether the tensor of that name stays as the program made it, because its different shape or dtype is allowed.
  bool stays(const std::string& name) const { return staying_.contains(name); }
  /// Whether a tracked optimizer updates this tensor.
  bool is_parameter(const at::Tensor& tensor) const { return parameters_.contains(tensor.unsafeGetTensorImpl()); }
  /// `owner`: the tracked item that would have to be resizable for the tensor to be compatible.
  void differs(Difference::Kind kind, const std::string& name, const std::string& what, const std::string& owner = {});
  /// Like differs(), unless a pattern that matches `name` or `also` allows it. Returns whether it is allowed.
  bool missing(const std::string& name, const std::string& what, const std::string& also = {});
  bool unexpected(const std::string& name, const std::string& what, const std::string& also = {});
  /// Whether a pattern allows the name in unexpected(). Reports nothing.
  bool allows_unexpected(const std::string& name, const std::string& also = {}) const;

  /// Loads into `tensor`.
  void fill(const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Loads into a new tensor, which is defined when the apply steps run.
  std::shared_ptr<at::Tensor> make(const storage::TensorEntry& entry, at::Device device = at::kCPU,
                                   std::vector<std::int64_t> strides = {});
  /// The tensor that replaces the program's `old` one, which has another shape or dtype: the same for all variables
  /// that hold `old`.
  std::shared_ptr<at::Tensor> make_instead_of(const at::Tensor& old, const storage::TensorEntry& entry);
  /// Runs after every tensor was read and every digest was verified, in the order of the `apply` calls.
  void apply(std::function<void(std::vector<std::string>& notes)> step) { steps_.push_back(std::move(step)); }

  /// Call after every item has planned: everything that no item asked for is unexpected.
  void finish();

  Compatibility fit;
  const std::vector<LoadTarget>& targets() const { return targets_; }
  const std::vector<std::function<void(std::vector<std::string>&)>>& steps() const { return steps_; }

 private:
  bool allowed(const std::vector<std::string>& patterns, Difference::Kind kind, const std::string& name,
               const std::string& what, const std::string& also, const char* outcome, const std::string& owner = {});
  /// Whether a tensor with the same bytes belongs to a resizable item, and it can take the entry's form in place.
  bool may_resize(const NamedTensor& named, const storage::TensorEntry& entry) const;
  void resize(const NamedTensor& named, const storage::TensorEntry& entry);
  /// If the latest difference is that this name is on one side only: notes that a resizable module has other layers.
  void note_rebuilt(const std::string& name);

  /// The name of a rank's own state in the checkpoint; empty if the checkpoint has none under this name.
  std::optional<std::string> own_name_of(const std::string& stored, std::optional<int> rank) const;

  const storage::Manifest& manifest_;
  const LoosenOptions& loosen_;
  const TensorNames& names_;
  const RankPlace place_;
  std::unordered_set<std::string> asked_tensors_;
  std::unordered_set<std::string> asked_values_;
  const std::set<const void*> parameters_;
  std::set<std::string> staying_;
  std::set<std::string> resizing_;
  std::set<std::string> resizable_;  // the names that resizable items' tensors are stored as
  std::map<std::pair<const void*, const storage::TensorEntry*>, std::shared_ptr<at::Tensor>> instead_of_;
  std::vector<LoadTarget> targets_;
  std::vector<std::function<void(std::vector<std::string>&)>> steps_;
};

/// The call that the program needs, as in `track("means", means, holdfast::resizable)`.
std::string track_as_resizable(const std::string& name);

}  // namespace holdfast
