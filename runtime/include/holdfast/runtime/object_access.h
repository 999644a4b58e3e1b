// How a tracked object with save() and load() is reached without its type being known.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "holdfast/runtime/state.h"

namespace holdfast {

struct ObjectAccess {
  std::function<void(State&)> save;
  std::function<void(const State&)> load;
  /// Where ranks hold shares (HasShares); else empty.
  std::function<void(const State& own, const std::vector<State>& shares)> load_shares = {};
};

/// The object outlives it.
template <HasState T>
ObjectAccess access_object(T& x) {
  ObjectAccess access{[&x](State& state) { std::as_const(x).save(state); },
                      [&x](const State& state) { x.load(state); }};
  if constexpr (HasShares<T>) {
    access.load_shares = [&x](const State& own, const std::vector<State>& shares) { x.load_shares(own, shares); };
  }
  return access;
}

}  // namespace holdfast
