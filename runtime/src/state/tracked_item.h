// One tracked object, and what it fills: a Capture when the state is saved, a Plan when a version is compared or
// loaded.
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
#include <vector>

#include "holdfast/runtime/serialize/object_reference.h"
#include "holdfast/runtime/serialize/state.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/run/payload.h"
#include "state/compatibility.h"
#include "state/rank_names.h"
#include "tensors/load_target.h"
#include "tensors/tensor_form.h"
#include "tensors/tensor_names.h"
#include "tensors/tensor_source.h"

namespace holdfast {

class Capture {
 public:
  /// `parameters`: the tensors that tracked optimizers update, asked for where a tensor has changed its shape.
  /// `digests_generators`: whether `generators` is filled, too.
  Capture(const TensorNames& names, std::function<std::set<const void*>()> parameters, bool digests_generators);

  const TensorNames& names() const { return names_; }
  /// Whether a tracked optimizer updates this tensor.
  bool is_parameter(const at::Tensor& tensor) const;
  /// A tensor besides those in names(). `is_alike`: on every rank, so rank 0's will do for all.
  /// Throws as make_source does.
  void tensor(const std::string& name, const at::Tensor& tensor, bool is_alike);
  /// The value of the tracked object `name`; numbers that JSON cannot write are fine.
  void value(const std::string& name, nlohmann::json value);
  bool digests_generators() const { return digests_generators_; }
  /// Notes the digest of the value or tensor of this name, which is a generator's state.
  void generator(const std::string& name);
  /// All tensors that have bytes of their own, by name. Call it last. Throws Error (invalid) for a name that is taken.
  std::vector<storage::TensorSource> take_sources();

  std::map<std::string, std::string> tied;
  nlohmann::json values = nlohmann::json::object();
  std::set<std::string> may_differ;               // tensors that ranks may hold differently
  std::map<std::string, std::string> generators;  // digests of states, by name

 private:
  const TensorNames& names_;
  const std::function<std::set<const void*>()> parameters_;
  const bool digests_generators_;
  std::shared_ptr<CopyBuffer> buffer_;
  std::vector<storage::TensorSource> sources_;
};

/// Compares what is tracked with a manifest and collects what a restore would do; building one changes nothing.
class Plan {
 public:
  Plan(const storage::Manifest& manifest, const LoosenOptions& loosen, const TensorNames& names,
       const RankPlace& place = {}, std::set<const void*> parameters = {});

  const storage::Manifest& manifest() const { return manifest_; }
  const TensorNames& names() const { return names_; }

  const RankPlace& place() const { return place_; }
  /// How many ranks made the version.
  int saved_ranks() const { return saved_world_size(manifest_); }
  /// Whether `name` was each rank's own, and the ranks are others now: what one of them held is nobody's.
  bool is_of_other_ranks(const std::string& name) const;
  /// For a generator whose saved stream cannot be gone on with: of the run's seed, its step, this rank and the name.
  std::uint64_t fresh_seed(const std::string& name) const;

  /// The checkpoint's tensor of this name, from now on expected in it; null where there is none (nothing is noted).
  /// Where ranks differed it is that of `rank`, else this rank's own.
  const storage::TensorEntry* find_tensor(const std::string& name, std::optional<int> rank = {});
  /// As above; null counts as missing, `what` describes the program's side.
  const storage::TensorEntry* need_tensor(const std::string& name, const std::string& what,
                                          std::optional<int> rank = {});
  const nlohmann::json* find_value(const std::string& name, std::optional<int> rank = {});
  /// Whether `name` is a tensor variable that was saved while it was undefined.
  bool was_undefined(const std::string& name);
  /// The decoded value of a tracked object, noted as missing where there is none.
  std::optional<nlohmann::json> need_value(const std::string& name, const std::string& what);

  /// Notes a difference unless the entry has the tensor's shape and dtype, or the name may stay as it is.
  bool matches(const std::string& name, const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Whether a variable of another shape or dtype is given a tensor as the entry's; else it stays, which is noted.
  bool takes_other_form(const std::string& name, const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Whether the tensor of that name takes the entry's shape and dtype in place, because it has another and its owner
  /// is resizable.
  bool resizes(const std::string& name) const { return resizing_.contains(name); }
  /// Whether the tensor of that name stays as the program made it, because it has another shape or dtype and may.
  bool stays(const std::string& name) const { return staying_.contains(name); }
  /// Whether a tracked optimizer updates this tensor.
  bool is_parameter(const at::Tensor& tensor) const { return parameters_.contains(tensor.unsafeGetTensorImpl()); }
  /// `owner`: the tracked item that would have to be resizable for it to fit.
  void differs(Difference::Kind kind, const std::string& name, const std::string& what, const std::string& owner = {});
  /// As differs(), for a name that counts as allowed where a pattern matches it or `also`. Says whether it is.
  bool missing(const std::string& name, const std::string& what, const std::string& also = {});
  bool unexpected(const std::string& name, const std::string& what, const std::string& also = {});
  /// Whether unexpected() would be allowed. Notes nothing.
  bool allows_unexpected(const std::string& name, const std::string& also = {}) const;

  /// Loads into `tensor`.
  void fill(const storage::TensorEntry& entry, const at::Tensor& tensor);
  /// Loads into a new tensor, which is there once apply steps run.
  std::shared_ptr<at::Tensor> make(const storage::TensorEntry& entry, at::Device device = at::kCPU,
                                   std::vector<std::int64_t> strides = {});
  /// The tensor that takes the place of the program's `old` one, which has another shape or dtype: one for all
  /// variables that hold `old`.
  std::shared_ptr<at::Tensor> make_instead_of(const at::Tensor& old, const storage::TensorEntry& entry);
  /// Runs after every tensor was read and every digest was right, in order of `apply` calls.
  void apply(std::function<void(std::vector<std::string>& notes)> step) { steps_.push_back(std::move(step)); }

  /// Call once every item has planned: whatever nobody asked for is unexpected.
  void finish();

  Compatibility fit;
  const std::vector<LoadTarget>& targets() const { return targets_; }
  const std::vector<std::function<void(std::vector<std::string>&)>>& steps() const { return steps_; }

 private:
  bool allowed(const std::vector<std::string>& patterns, Difference::Kind kind, const std::string& name,
               const std::string& what, const std::string& also, const char* outcome, const std::string& owner = {});
  /// Whether a tensor with the same bytes belongs to a resizable item, and it can be given the entry's in place.
  bool may_resize(const NamedTensor& named, const storage::TensorEntry& entry) const;
  void resize(const NamedTensor& named, const storage::TensorEntry& entry);
  /// Where the latest difference is that this name is on one side only: says that a resizable module has other layers.
  void note_rebuilt(const std::string& name);

  /// What the checkpoint has of a rank's own under this name, which is called so there; empty where it has none.
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

[[noreturn]] void throw_null(const char* kind, const std::string& name);

class TrackedItem {
 public:
  explicit TrackedItem(std::string name) : name_(std::move(name)) {}
  virtual ~TrackedItem() = default;
  const std::string& name() const { return name_; }
  /// The address of the user's variable that is tracked; null where the registry keeps the object alive.
  const void* variable() const { return variable_; }
  /// Whether the run went on with it: begin() was called, or a version was restored into it.
  bool has_begun() const { return has_begun_; }
  void note_begun() { has_begun_ = true; }
  void refer_to(const void* variable) { variable_ = variable; }
  /// Whether its tensors take another shape and dtype that was saved (resizable.h).
  bool is_resizable() const { return is_resizable_; }
  /// Whether the program draws numbers from it.
  bool is_generator() const { return is_generator_; }
  void note_generator() { is_generator_ = true; }
  void let_resize() { is_resizable_ = true; }
  /// The module, optimizer or scheduler that the variable holds now; null for everything else.
  virtual const void* object() const { return nullptr; }

  /// What is to be tracked under names of their own with it ("name.part"), as it is now.
  virtual std::vector<StatePart> parts() const { return {}; }
  /// The item whose part it is; null for what the user tracked.
  const TrackedItem* owner() const { return owner_; }
  void belongs_to(const TrackedItem* owner) { owner_ = owner; }

  /// Its tensors that live in the program and that optimizers may refer to. Capture and Plan take care of these.
  virtual void add_names(TensorNames&) const {}
  /// The tensors that it updates, where it is an optimizer; false where that cannot be told.
  virtual bool add_parameters(std::set<const void*>&) const { return true; }
  /// The first step is next: what flags and options say now is what the code says.
  virtual void begin(const TensorNames&) {}
  /// Everything else it has. Throws Error (invalid) for what a program that begins as this one did could not restore.
  virtual void capture(Capture&) const {}
  virtual void plan(Plan&) {}

 private:
  std::string name_;
  const void* variable_ = nullptr;
  const TrackedItem* owner_ = nullptr;
  bool has_begun_ = false;
  bool is_resizable_ = false;
  bool is_generator_ = false;
};

/// `track("means", means, holdfast::resizable)`, as it may stand in the program.
std::string track_as_resizable(const std::string& name);

/// What a reference refers to now. Throws Error (invalid) where that is nothing; `kind`: "module".
template <class Object>
Object& held_by(const ObjectReference<Object>& reference, const char* kind, const std::string& name) {
  Object* const object = reference.get();
  if (object == nullptr) throw_null(kind, name);
  return *object;
}

}  // namespace holdfast
