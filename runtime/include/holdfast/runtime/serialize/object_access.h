// Access to a tracked object with save() and load() whose type is unknown.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/serialize/state.h"

namespace holdfast::detail {

struct ObjectAccess {
  std::function<void(State&)> save;
  std::function<void(const State&)> load;
  /// For an object that is sharded over the ranks (HasShares); otherwise empty.
  std::function<void(const State& own, const std::vector<State>& shares)> load_shares = {};
  /// Throws what load() would throw for a state without tensors. Empty if that cannot be tried.
  std::function<void(const State&)> check = {};
  /// Whether save() may put modules, optimizers, schedulers, generators or tensors that optimizers hold.
  bool may_bear_parts = true;
  /// Whether it may update parameters itself.
  bool may_be_optimizer = true;
};

/// `find` returns a reference to the object; each save and load calls it.
template <class Find>
ObjectAccess access_object_by(Find find) {
  using Object = std::remove_reference_t<decltype(find())>;
  ObjectAccess access{[find](State& state) { std::as_const(find()).save(state); },
                      [find](const State& state) { find().load(state); }};
  if constexpr (HasShares<Object>) {
    access.load_shares = [find](const State& own, const std::vector<State>& shares) {
      find().load_shares(own, shares);
    };
  }
  return access;
}

/// The object must outlive the access.
template <HasState T>
ObjectAccess access_object(T& x) {
  return access_object_by([&x]() -> T& { return x; });
}

/// Saves an object that makes up a whole state.
template <class T>
struct WholeObject {
  static void save(State& state, const T& x) { state.add("", x); }
};

/// An object with holdfast_state(), or a container. Within its state its name is "": the object is the whole state.
template <class T>
ObjectAccess access_whole(T& x) {
  ObjectAccess access{[&x](State& state) { WholeObject<T>::save(state, x); },
                      [&x](const State& state) { state.get_to("", x); }};
  access.may_bear_parts = may_bear_parts<T>();
  access.may_be_optimizer = false;
  if constexpr (!HasMembers<T> && std::default_initializable<T> && !is_anywhere<MayBearParts, T>()) {
    access.check = [](const State& state) {
      T probe{};
      state.get_to("", probe);
    };
  }
  return access;
}

/// The object that the pointer `x`, tracked as `name`, points to at each save or load. The pointer must outlive it.
template <class T>
ObjectAccess access_object_through(const std::string& name, T& x) {
  return access_object_by([name, &x]() -> decltype(*x) {
    if (!x) {
      throw Error(storage::StatusCode::invalid,
                  "'" + name + "' is null: make it before it is saved or restored, or untrack it");
    }
    return *x;
  });
}

}  // namespace holdfast::detail
