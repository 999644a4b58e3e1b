#include "session/tracked_lifetimes.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/held_state.h"
#include "holdfast/runtime/error.h"
#include "snapshot/stored_name.h"

namespace holdfast {

using storage::StatusCode;

void TrackedLifetimes::remember(const std::string& name, const void* variable) {
  if (const auto owner = owner_of(variable)) owners_[name] = *owner;
}

// Keeps own bytes of tensors that are tied to another object's.
void TrackedLifetimes::retire(const RunState& tracked, const std::string& name, bool keeps_bytes) {
  // The whole state, because an optimizer can be saved only together with its parameters.
  if (!before_untrack_) before_untrack_ = tracked.capture();
  const Snapshot& all = *before_untrack_;
  const auto is_other = [&](const std::string& one) { return !is_of(one, name); };
  Snapshot state;
  for (const storage::TensorSource& source : all.tensors) {
    if (!is_other(source.name)) state.tensors.push_back(source);
  }
  for (const auto& [alias, stored_as] : all.tied) {
    if (is_other(alias)) continue;
    const auto source =
        std::find_if(all.tensors.begin(), all.tensors.end(),
                     [&, &source_name = stored_as](const auto& one) { return one.name == source_name; });
    if (source == all.tensors.end()) continue;
    state.tensors.push_back(*source);
    state.tensors.back().name = alias;
  }
  for (const storage::TensorSource& source : state.tensors) {
    if (all.may_differ.contains(source.name)) state.may_differ.insert(source.name);
  }
  for (const auto& [key, value] : all.values.items()) {
    if (!is_other(key)) state.values[key] = value;
  }
  copy_bytes(state, keeps_bytes);
  retired_.insert_or_assign(name, std::move(state));
}

Snapshot TrackedLifetimes::capture(const RunState& tracked) const {
  require_alive();
  Snapshot captured = tracked.capture();
  for (const auto& [name, state] : retired_) {
    captured.tensors.insert(captured.tensors.end(), state.tensors.begin(), state.tensors.end());
    captured.may_differ.insert(state.may_differ.begin(), state.may_differ.end());
    captured.values.update(state.values);
  }
  return captured;
}

void TrackedLifetimes::require_alive() const {
  for (const auto& [name, owner] : owners_) {
    if (!has_returned(owner)) continue;
    throw Error(
        StatusCode::invalid,
        fmt::format("'{}' is tracked and no longer exists, because the function that declared it has returned: "
                    "call session.untrack(\"{}\") before it returns, or declare it where it lives until the last "
                    "loop is over",
                    name, name));
  }
}

}  // namespace holdfast
