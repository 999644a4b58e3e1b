#include "state/run_state.h"

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <algorithm>

#include "holdfast/runtime/error.h"
#include "snapshot/stored_name.h"
#include "snapshot/tensor_feed.h"
#include "state/tracked_registry.h"
#include "tensors/tensor_load.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Reads directly from a version.
class VersionFeed final : public TensorFeed {
 public:
  VersionFeed(const storage::VersionReader& version, const storage::ReadOptions& options)
      : version_(version), options_(options) {}
  void require(const Compatibility& fit) override {
    if (!fit.ok()) throw Error(StatusCode::misfit, fit.message());
  }
  void fill(const std::vector<LoadTarget>& targets) override { load_tensors(version_, targets, options_); }

 private:
  const storage::VersionReader& version_;
  const storage::ReadOptions& options_;
};

}  // namespace

RunState::RunState(const RankPlace& place) : TrackedState(std::make_unique<Registry>(place)) {}

std::vector<TrackedVariable> RunState::variables() const {
  std::vector<TrackedVariable> all;
  for (const auto& item : registry_->items) {
    if (item->owner() == nullptr) all.push_back({item->name(), item->variable()});
  }
  return all;
}

bool RunState::tracks(const std::string& name) const { return registry_->names.contains(name); }

bool RunState::tracks(const torch::nn::Module& module) const { return registry_->holder_of(&module) != nullptr; }

bool RunState::tracks(const torch::optim::Optimizer& optimizer) const {
  return registry_->holder_of(&optimizer) != nullptr;
}

void RunState::watch_gradients() {
  find_parts();
  registry_->gradients.reset();
  std::set<const void*> optimized;
  for (const auto& item : registry_->items) {
    if (!item->add_parameters(optimized)) return;
  }
  registry_->gradients = std::make_unique<GradientWatch>();
  for (const auto& item : registry_->items) {
    TensorNames names;
    item->add_names(names);
    for (const NamedTensor& named : names.all()) {
      const at::Tensor& tensor = named.tensor;
      if (optimized.contains(tensor.unsafeGetTensorImpl())) {
        registry_->gradients->note_held(item->name());
      } else if (tensor.is_leaf() && tensor.requires_grad()) {
        registry_->gradients->add(item->name(), named.name, tensor);
      }
    }
  }
}

std::vector<std::string> RunState::without_optimizer() {
  if (!registry_->gradients) return {};
  const std::vector<std::string> found = registry_->gradients->forgotten(registry_->parameters());
  registry_->gradients.reset();
  return found;
}

bool RunState::may_hold_parameters() const { return registry_->may_hold_parameters; }

void RunState::begin() {
  find_parts();
  const bool all_begun =
      std::all_of(registry_->items.begin(), registry_->items.end(), [](const auto& item) { return item->has_begun(); });
  if (all_begun) return;
  capture();
  const TensorNames names = registry_->walk();
  for (const auto& item : registry_->items) {
    if (item->has_begun()) continue;
    item->begin(names);
    item->note_begun();
  }
}

Snapshot RunState::capture() const {
  find_parts();
  const TensorNames names = registry_->walk();
  Capture capture(
      names, [this] { return registry_->parameters(); }, /*digests_generators=*/false);
  registry_->capture(capture);

  Snapshot captured;
  captured.tensors = capture.take_sources();
  for (storage::TensorSource& source : captured.tensors) source.name = stored_name(std::move(source.name));
  for (const auto& [alias, name] : capture.tied) captured.tied.emplace(stored_name(alias), stored_name(name));
  for (const std::string& name : capture.may_differ) captured.may_differ.insert(stored_name(name));
  for (auto& [name, value] : capture.values.items()) captured.values[stored_name(name)] = std::move(value);
  return captured;
}

std::map<std::string, std::string> RunState::generators() const {
  find_parts();
  const TensorNames names = registry_->walk();
  Capture capture(
      names, [this] { return registry_->parameters(); }, /*digests_generators=*/true);
  registry_->capture(capture);
  return std::move(capture.generators);
}

Compatibility RunState::check(const storage::Manifest& manifest, const LoosenOptions& loosen) const {
  find_parts();
  const TensorNames names = registry_->walk();
  RestorePlan plan(manifest, loosen, names, registry_->place, registry_->parameters());
  registry_->plan(plan);
  return std::move(plan.fit);
}

Restored RunState::restore(const storage::VersionReader& version, const LoosenOptions& loosen,
                           const storage::ReadOptions& options) {
  VersionFeed feed(version, options);
  return restore(version.manifest(), loosen, feed);
}

Restored RunState::restore(const storage::Manifest& manifest, const LoosenOptions& loosen, TensorFeed& feed) {
  // R1. Compare: an incompatible checkpoint is found before anything is overwritten.
  find_parts();
  const TensorNames names = registry_->walk();
  RestorePlan plan(manifest, loosen, names, registry_->place, registry_->parameters());
  registry_->plan(plan);
  feed.require(plan.fit);

  // R2. Read every tensor, digests checked: the program's own in place, all others into new memory.
  feed.fill(plan.targets());

  // R3. Restore the rest: optimizer state and options, values, user types; the process's generators last, so that no
  // load can draw from them afterwards.
  Restored restored{std::move(plan.fit.notes)};
  for (const auto& step : plan.steps()) step(restored.notes);
  for (const auto& item : registry_->items) item->note_begun();
  return restored;
}

}  // namespace holdfast
