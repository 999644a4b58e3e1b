#include "holdfast/runtime/state/tracked_state.h"

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>

#include <algorithm>
#include <set>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/nearest_name.h"
#include "state/gradient_watch.h"
#include "state/stored_name.h"
#include "state/tensor_feed.h"
#include "state/tracked_item.h"
#include "state/tracked_optimizer.h"
#include "state/tracked_schedulers.h"
#include "state/tracked_tensors.h"
#include "state/tracked_values.h"
#include "tensors/tensor_load.h"
#include "tensors/tensor_names.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Straight from a version.
class VersionFeed final : public TensorFeed {
 public:
  VersionFeed(const storage::VersionReader& version, const storage::ReadOptions& options)
      : version_(version), options_(options) {}
  void require(const Fit& fit) override {
    if (!fit.ok()) throw Error(StatusCode::misfit, fit.message());
  }
  void fill(const std::vector<LoadTarget>& targets) override { load_tensors(version_, targets, options_); }

 private:
  const storage::VersionReader& version_;
  const storage::ReadOptions& options_;
};

}  // namespace

struct TrackedState::Registry {
  explicit Registry(const RankPlace& where) : place(where) {}

  const RankPlace place;
  std::vector<std::unique_ptr<TrackedItem>> items;  // in the order they were tracked
  std::set<std::string> names;
  std::map<std::pair<const void*, std::type_index>, std::string> variables;  // and the names they are tracked under
  bool may_hold_parameters = false;
  mutable std::size_t tensors_before = 0;  // which the latest walk found
  const TrackedItem* owner = nullptr;      // of what is added now
  std::unique_ptr<GradientWatch> gradients;

  void require_free(const std::string& name, const Identity& identity) const {
    if (name.empty()) throw Error(StatusCode::invalid, "track() needs a name that is not empty");
    if (name == "__metadata__") {
      throw Error(StatusCode::invalid,
                  "'__metadata__' means something else in a safetensors file: choose another name");
    }
    try {
      nlohmann::json(name).dump();
    } catch (const nlohmann::json::exception&) {
      throw Error(StatusCode::invalid, "track() needs a name in UTF-8");
    }
    if (names.contains(name)) {
      throw Error(StatusCode::invalid, "'" + name + "' is tracked already: choose another name");
    }
    if (const auto found = variables.find({identity.address, identity.type}); found != variables.end()) {
      throw_twice(name, found->second);
    }
  }

  [[noreturn]] static void throw_twice(const std::string& name, const std::string& other) {
    throw Error(StatusCode::invalid,
                "'" + name + "' is the object that is tracked as '" + other + "' already: track it once");
  }

  /// Null where no variable holds `object` now.
  const TrackedItem* holder_of(const void* object) const {
    const auto found =
        std::find_if(items.begin(), items.end(), [&](const auto& item) { return item->object() == object; });
    return found == items.end() ? nullptr : found->get();
  }

  TrackedItem& named(const std::string& name) const {
    return **std::find_if(items.begin(), items.end(), [&](const auto& item) { return item->name() == name; });
  }

  void add(const Identity& identity, std::unique_ptr<TrackedItem> item) {
    if (const void* const object = item->object(); object != nullptr) {
      if (const TrackedItem* other = holder_of(object)) throw_twice(item->name(), other->name());
    }
    item->refer_to(identity.address);
    item->belongs_to(owner);
    names.insert(item->name());
    if (identity.address != nullptr) {
      variables.emplace(std::pair(identity.address, identity.type), item->name());
    }
    // An object is loaded after its parts.
    const auto before =
        std::find_if(items.begin(), items.end(), [&](const auto& other) { return other.get() == owner; });
    items.insert(before, std::move(item));
  }

  void remove(const std::string& name) {
    const auto found = std::find_if(items.begin(), items.end(), [&](const auto& item) { return item->name() == name; });
    if (found == items.end()) {
      std::string meant;
      if (!names.empty()) meant = storage::nearest_name(name, {names.begin(), names.end()}).name;
      throw Error(StatusCode::invalid, "untrack('" + name + "'): nothing is tracked under that name" +
                                           (meant.empty() ? "" : "; the nearest one is '" + meant + "'"));
    }
    const TrackedItem* const item = found->get();
    if (item->owner() != nullptr) {
      throw Error(StatusCode::invalid, "untrack('" + name + "'): it is a part of '" + item->owner()->name() +
                                           "', which is what can be untracked");
    }
    std::vector<std::string> gone{name};
    for (const auto& other : items) {
      if (other->owner() == item) gone.push_back(other->name());
    }
    for (const std::string& each : gone) forget(each);
  }

  void forget(const std::string& name) {
    std::erase_if(variables, [&](const auto& variable) { return variable.second == name; });
    names.erase(name);
    std::erase_if(items, [&](const auto& item) { return item->name() == name; });
  }

  TensorNames walk() const {
    TensorNames found(tensors_before);
    for (const auto& item : items) {
      found.begin_owner(item->name(), item->is_resizable());
      item->add_names(found);
    }
    tensors_before = found.all().size();
    return found;
  }

  std::set<const void*> parameters() const {
    std::set<const void*> found;
    for (const auto& item : items) item->add_parameters(found);
    return found;
  }

  void plan(Plan& plan) const {
    for (const auto& item : items) item->plan(plan);
    generators->plan(plan);
    plan.finish();
  }

  const std::unique_ptr<TrackedItem> generators = make_default_generators(place);
};

TrackedState::TrackedState(const RankPlace& place) : registry_(std::make_unique<Registry>(place)) {}
TrackedState::~TrackedState() = default;
TrackedState::TrackedState(TrackedState&&) noexcept = default;
TrackedState& TrackedState::operator=(TrackedState&&) noexcept = default;

void TrackedState::add_module(const std::string& name, Identity identity, ObjectReference<torch::nn::Module> module) {
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_module(name, identity.address, std::move(module)));
  registry_->may_hold_parameters = true;
}

void TrackedState::add_optimizer(const std::string& name, Identity identity,
                                 ObjectReference<torch::optim::Optimizer> optimizer) {
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_optimizer(name, std::move(optimizer)));
  registry_->may_hold_parameters = true;
}

void TrackedState::add_scheduler(const std::string& name, Identity identity,
                                 ObjectReference<torch::optim::LRScheduler> scheduler) {
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_scheduler(name, std::move(scheduler)));
}

void TrackedState::add_scheduler(const std::string& name, Identity identity,
                                 ObjectReference<torch::optim::ReduceLROnPlateauScheduler> scheduler) {
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_scheduler(name, std::move(scheduler)));
}

void TrackedState::add_tensor(const std::string& name, at::Tensor& tensor) {
  const Identity identity{&tensor, typeid(at::Tensor)};
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_tensor(name, tensor));
  registry_->may_hold_parameters = true;
}

void TrackedState::add_generator(const std::string& name, at::Generator& generator) {
  const Identity identity{&generator, typeid(at::Generator)};
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_generator(name, generator));
}

void TrackedState::add_value(const std::string& name, Identity identity, ValueAccess access) {
  registry_->require_free(name, identity);
  registry_->add(identity, make_tracked_value(name, std::move(access)));
}

void TrackedState::add_object(const std::string& name, Identity identity, ObjectAccess access) {
  registry_->require_free(name, identity);
  registry_->may_hold_parameters = registry_->may_hold_parameters || access.may_bear_parts;
  registry_->add(identity, make_tracked_object(name, std::move(access)));
}

void TrackedState::let_resize(const std::string& name) { registry_->named(name).let_resize(); }
void TrackedState::note_generator(const std::string& name) { registry_->named(name).note_generator(); }

void TrackedState::untrack(const std::string& name) { registry_->remove(name); }

void TrackedState::find_parts() const {
  std::vector<const TrackedItem*> objects;
  for (const auto& item : registry_->items) {
    if (item->owner() == nullptr) objects.push_back(item.get());
  }
  for (const TrackedItem* const object : objects) {
    const std::vector<StatePart> parts = object->parts();
    std::map<std::string, const void*> added;
    for (const StatePart& part : parts) added.emplace(part.name, part.address);
    // What was there and is elsewhere now, as where a vector grew, is another variable.
    std::vector<std::string> gone;
    for (const auto& item : registry_->items) {
      if (item->owner() != object) continue;
      const auto found = added.find(item->name());
      if (found != added.end() && found->second == item->variable()) {
        added.erase(found);
      } else {
        gone.push_back(item->name());
      }
    }
    for (const std::string& name : gone) registry_->forget(name);
    registry_->owner = object;
    try {
      for (const StatePart& part : parts) {
        if (added.contains(part.name)) part.track(const_cast<TrackedState&>(*this), part.name);
      }
    } catch (...) {
      registry_->owner = nullptr;
      throw;
    }
    registry_->owner = nullptr;
  }
}

std::vector<TrackedVariable> TrackedState::variables() const {
  std::vector<TrackedVariable> all;
  for (const auto& item : registry_->items) {
    if (item->owner() == nullptr) all.push_back({item->name(), item->variable()});
  }
  return all;
}

bool TrackedState::tracks(const std::string& name) const { return registry_->names.contains(name); }

bool TrackedState::tracks(const torch::nn::Module& module) const { return registry_->holder_of(&module) != nullptr; }

bool TrackedState::tracks(const torch::optim::Optimizer& optimizer) const {
  return registry_->holder_of(&optimizer) != nullptr;
}

void TrackedState::watch_gradients() {
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

std::vector<std::string> TrackedState::without_optimizer() {
  if (!registry_->gradients) return {};
  const std::vector<std::string> found = registry_->gradients->forgotten(registry_->parameters());
  registry_->gradients.reset();
  return found;
}

bool TrackedState::may_hold_parameters() const { return registry_->may_hold_parameters; }

void TrackedState::begin() {
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

Captured TrackedState::capture() const {
  find_parts();
  const TensorNames names = registry_->walk();
  Capture capture(
      names, [this] { return registry_->parameters(); }, /*digests_generators=*/false);
  for (const auto& item : registry_->items) item->capture(capture);
  registry_->generators->capture(capture);

  Captured captured;
  captured.tensors = capture.take_sources();
  for (storage::TensorSource& source : captured.tensors) source.name = stored_name(std::move(source.name));
  for (const auto& [alias, name] : capture.tied) captured.tied.emplace(stored_name(alias), stored_name(name));
  for (const std::string& name : capture.may_differ) captured.may_differ.insert(stored_name(name));
  for (auto& [name, value] : capture.values.items()) captured.values[stored_name(name)] = std::move(value);
  return captured;
}

std::map<std::string, std::string> TrackedState::generators() const {
  find_parts();
  const TensorNames names = registry_->walk();
  Capture capture(
      names, [this] { return registry_->parameters(); }, /*digests_generators=*/true);
  for (const auto& item : registry_->items) {
    item->capture(capture);
    if (item->is_generator()) capture.generator(item->name());
  }
  return std::move(capture.generators);
}

Fit TrackedState::check(const storage::Manifest& manifest, const LoosenOptions& loosen) const {
  find_parts();
  const TensorNames names = registry_->walk();
  Plan plan(manifest, loosen, names, registry_->place, registry_->parameters());
  registry_->plan(plan);
  return std::move(plan.fit);
}

Restored TrackedState::restore(const storage::VersionReader& version, const LoosenOptions& loosen,
                               const storage::ReadOptions& options) {
  VersionFeed feed(version, options);
  return restore(version.manifest(), loosen, feed);
}

Restored TrackedState::restore(const storage::Manifest& manifest, const LoosenOptions& loosen, TensorFeed& feed) {
  // R1. Compare: a misfit is found before anything is overwritten.
  find_parts();
  const TensorNames names = registry_->walk();
  Plan plan(manifest, loosen, names, registry_->place, registry_->parameters());
  registry_->plan(plan);
  feed.require(plan.fit);

  // R2. Read every tensor, digests checked: the program's own in place, all others into new memory.
  feed.fill(plan.targets());

  // R3. Hand over the rest: optimizer state and options, values, user types; the process's generators last, so that
  // nothing that loads can draw from them afterwards.
  Restored restored{std::move(plan.fit.notes)};
  for (const auto& step : plan.steps()) step(restored.notes);
  for (const auto& item : registry_->items) item->note_begun();
  return restored;
}

}  // namespace holdfast
