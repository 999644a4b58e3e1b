#include "holdfast/runtime/state/tracked_state.h"

#include <map>
#include <utility>
#include <vector>

#include "state/tracked_generators.h"
#include "state/tracked_module.h"
#include "state/tracked_optimizer.h"
#include "state/tracked_registry.h"
#include "state/tracked_schedulers.h"
#include "state/tracked_tensor.h"
#include "state/tracked_values.h"

namespace holdfast::detail {

TrackedState::TrackedState(std::unique_ptr<Registry> registry) : registry_(std::move(registry)) {}
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
    // A part whose address has changed, e.g. because a vector grew, is another variable.
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

}  // namespace holdfast::detail
