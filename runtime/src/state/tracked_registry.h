// The contents of a TrackedState: the items in the order they were tracked, and their names and variables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <typeindex>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/state/tracked_state.h"
#include "holdfast/storage/text/nearest_name.h"
#include "state/gradient_watch.h"
#include "state/tracked_generators.h"
#include "state/tracked_item.h"
#include "tensors/tensor_names.h"

namespace holdfast::detail {

struct TrackedState::Registry {
  explicit Registry(const RankPlace& where) : place(where) {}

  const RankPlace place;
  std::vector<std::unique_ptr<TrackedItem>> items;  // in the order they were tracked
  std::set<std::string> names;
  std::map<std::pair<const void*, std::type_index>, std::string> variables;  // and the names they are tracked under
  bool may_hold_parameters = false;
  mutable std::size_t tensors_before = 0;  // how many the latest walk found
  const TrackedItem* owner = nullptr;      // of items that are added now
  std::unique_ptr<GradientWatch> gradients;

  void require_free(const std::string& name, const Identity& identity) const {
    if (name.empty()) throw Error(storage::StatusCode::invalid, "track() needs a name that is not empty");
    if (name == "__metadata__") {
      throw Error(storage::StatusCode::invalid,
                  "'__metadata__' is reserved by the safetensors format: choose another name");
    }
    try {
      nlohmann::json(name).dump();
    } catch (const nlohmann::json::exception&) {
      throw Error(storage::StatusCode::invalid, "track() needs a name in UTF-8");
    }
    if (names.contains(name)) {
      throw Error(storage::StatusCode::invalid, "'" + name + "' is tracked already: choose another name");
    }
    if (const auto found = variables.find({identity.address, identity.type}); found != variables.end()) {
      throw_twice(name, found->second);
    }
  }

  [[noreturn]] static void throw_twice(const std::string& name, const std::string& other) {
    throw Error(storage::StatusCode::invalid,
                "'" + name + "' is the object that is tracked as '" + other + "' already: track it once");
  }

  /// Null if no variable holds `object` now.
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
      throw Error(storage::StatusCode::invalid, "untrack('" + name + "'): nothing is tracked under that name" +
                                                    (meant.empty() ? "" : "; the nearest one is '" + meant + "'"));
    }
    const TrackedItem* const item = found->get();
    if (item->owner() != nullptr) {
      throw Error(storage::StatusCode::invalid, "untrack('" + name + "'): it is a part of '" + item->owner()->name() +
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

  void capture(Capture& capture) const {
    for (const auto& item : items) {
      item->capture(capture);
      if (capture.digests_generators() && item->is_generator()) capture.generator(item->name());
    }
    if (!capture.digests_generators()) generators->capture(capture);
  }

  void plan(RestorePlan& plan) const {
    for (const auto& item : items) item->plan(plan);
    generators->plan(plan);
    plan.finish();
  }

  const std::unique_ptr<TrackedItem> generators = make_default_generators(place);
};

}  // namespace holdfast::detail
