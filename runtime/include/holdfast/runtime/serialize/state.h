// State: what a user's own type saves and loads. A type names its members once,
//
//   class Trainer {
//     template <class Archive>
//     void holdfast_state(Archive& a) { a("net", net_)("optimizer", optimizer_)("replay", replay_)("best", best_); }
//     friend struct holdfast::StateMembers;  // if holdfast_state() is private
//     …
//   };
//
// or saves and loads itself:
//
//   struct Average {
//     torch::Tensor average;
//     double decay = 0.999;
//     void save(holdfast::State& state) const { state.put("average", average).put("decay", decay); }
//     void load(const holdfast::State& state) { state.get_to("average", average); state.get_to("decay", decay); }
//   };
//
// Types that can be saved: numbers, enums, text, tensors; modules, optimizers, schedulers and generators, themselves or
// in a pointer or holder; the standard engines and distributions; both kinds of types above; anything with nlohmann's
// to_json and from_json; and vector, deque, list, set, map, unordered_map, array, C array, pair, tuple, variant,
// optional, unique_ptr, shared_ptr, stack, queue, priority_queue, complex, bitset, atomic, durations and time points of
// all these. Modules, optimizers, schedulers and generators stay where the program made them: loading a checkpoint
// requires as many of them as were saved, also in containers. Everything else is restored as it was saved, including
// containers' lengths and what pointers hold; two shared_ptr of one object are restored as two objects.
//
// Small values are saved as readable JSON in the manifest. Larger containers and texts are saved as columns
// (columns.h).
//
// Names are UTF-8 and not empty; dots are allowed ("encoder.weight"). A nested State is a view of the same contents
// under a longer name: nested("a").put("b", x) and put("a.b", x) are the same. One thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <type_traits>
#include <typeindex>
#include <vector>

#include "holdfast/runtime/serialize/columns.h"
#include "holdfast/runtime/serialize/state_forms.h"

namespace holdfast {

namespace detail {

class TrackedState;
class PartsWriter;
class PartsReader;
template <class T>
struct WholeObject;

/// A type that is sharded over the ranks, such as a part of a sum. If a checkpoint of N ranks is loaded on M ranks,
/// `shares` are the states of the saved ranks r with r % M == rank; it is empty if there were too few ranks. `own` is
/// the first of these, or otherwise rank 0's.
template <class T>
concept HasShares = HasState<T> && requires(T& loaded, const State& own, const std::vector<State>& shares) {
  loaded.load_shares(own, shares);
};

/// A module, an optimizer, a scheduler, a generator or a tensor variable in an object: tracked under a name of its own.
struct StatePart {
  std::string name;
  const void* address;
  std::type_index type;
  std::function<void(TrackedState&, const std::string& full_name)> track;
};

}  // namespace detail

class State {
 public:
  State();

  /// The part of this state whose names start with `name` and a dot. Shares its contents.
  State nested(const std::string& name) const;
  /// Whether there is a tensor or a value of this name, or anything nested below it.
  bool has(const std::string& name) const;

  /// Adds a tensor (by handle: its bytes are read while the checkpoint is written; an undefined one is restored as
  /// undefined) or anything else that can be saved. Throws Error for a name that is taken or empty.
  template <class T>
  requires(detail::IsSupported<T> ||
           std::convertible_to<const T&, std::string_view>) State& put(const std::string& name, const T& x);

  /// Adds a tensor that is known to be replicated on all ranks, as parameters and their averages are. This avoids the
  /// comparison at every save.
  State& put_alike(const std::string& name, const at::Tensor& tensor) {
    require_name(name);
    put_tensor(name, tensor, /*is_alike=*/true);
    return *this;
  }

  /// What was put under this name; throws Error (misfit) that names a missing entry. Loaded tensors are on the CPU,
  /// contiguous, and owned by the caller.
  template <class T>
  T get(const std::string& name) const {
    static_assert(!detail::IsPart<T>,
                  "get() cannot make a module, an optimizer, a scheduler or a generator: use get_to()");
    if constexpr (std::is_same_v<T, at::Tensor>) {
      return tensor(name);
    } else {
      T x{};
      get_to(name, x);
      return x;
    }
  }

  /// Like get(), into `x`. A defined tensor is overwritten in place, on its device, and must have the same shape and
  /// dtype; an undefined one becomes the loaded CPU tensor. Modules, optimizers, schedulers and generators are restored
  /// before load() is called.
  template <detail::IsSupported T>
  void get_to(const std::string& name, T& x) const;

  /// Everything below this state's name; the rest of each name is its key.
  std::map<std::string, at::Tensor> tensors() const;
  std::map<std::string, nlohmann::json> values() const;
  /// Whether a tensor was put by put_alike().
  bool is_alike(const std::string& name) const;

  /// The parts, in the order in which they were put.
  const std::vector<detail::StatePart>& parts() const;
  /// The names of values that are standard engines, from which each rank draws its own numbers.
  const std::set<std::string>& engines() const;
  /// A state that collects parts() only, and drops tensors and values.
  static State of_parts();
  /// What was saved, to be loaded again; `parts` are names.
  static State of_saved(std::map<std::string, at::Tensor> tensors, std::map<std::string, nlohmann::json> values,
                        std::set<std::string> parts);

 private:
  friend class detail::ColumnWriter;
  friend class detail::ColumnReader;
  friend class detail::PartsWriter;
  friend class detail::PartsReader;
  template <class T>
  friend struct detail::WholeObject;

  struct Contents;
  /// put() for a name that may be empty: "" is the whole object.
  template <class T>
  void add(const std::string& name, const T& x);
  /// `how`: nothing, or holdfast::resizable.
  template <class T, class... How>
  void put_part(const std::string& name, T& x, How... how);
  template <class T>
  void put_columns(const std::string& name, const T& x);
  template <class T, class Set>
  void get_json(const std::string& name, Set set, T& x) const;
  void add_part(detail::StatePart part);
  void note_engine(const std::string& name);
  bool takes_only_parts() const;
  void require_name(const std::string& name) const;
  void require_part(const std::string& name) const;
  bool has_value(const std::string& name) const;
  /// Whether it was put as an object with parts.
  bool has_parts(const std::string& name) const {
    return has_value(name + ":parts") || has_value(name + ":present") || has_value(name + ":index");
  }
  void put_tensor(const std::string& name, const at::Tensor& tensor, bool is_alike);
  /// Long values are put as text in a column.
  void put_value(const std::string& name, nlohmann::json value);
  bool put_small(const std::string& name, nlohmann::json value);
  void put_raw(const std::string& name, nlohmann::json value);
  /// The value in its stored form; null if there is none.
  const nlohmann::json* raw(const std::string& name) const;
  const at::Tensor* find_tensor(const std::string& name) const;
  static bool is_columns(const nlohmann::json& value);
  void absorb(const std::string& name, const State& other);
  const at::Tensor& tensor(const std::string& name) const;
  nlohmann::json value(const std::string& name) const;
  void copy_tensor(const std::string& name, at::Tensor& into) const;
  [[noreturn]] void throw_other_type(const std::string& name, const std::string& why) const;

  std::shared_ptr<Contents> contents_;
  std::string prefix_;  // empty, or ends with a dot
};

namespace detail {

/// Defined in column_forms.h.
template <class T>
void write_column(ColumnWriter& column, const T& x);
template <class T>
void read_column(ColumnReader& column, T& x);

/// Defined in state_parts.h.
template <class T>
bool bears_parts(const T& x);
template <class T>
void put_with_parts(State& state, const std::string& name, T& x);
template <class T>
void get_with_parts(const State& state, const std::string& name, T& x);

/// Tracks what a part refers to under `full_name` (tracked_state.h).
template <class T, class... How>
void track_part(TrackedState& tracked, const std::string& full_name, T& x, How... how);

}  // namespace detail
}  // namespace holdfast

#include "holdfast/runtime/serialize/column_forms.h"
#include "holdfast/runtime/serialize/state_parts.h"

namespace holdfast {

template <class T, class... How>
void State::put_part(const std::string& name, T& x, How... how) {
  add_part({prefix_ + name, std::addressof(x), typeid(T),
            [&x, how...](detail::TrackedState& tracked, const std::string& full_name) {
              detail::track_part(tracked, full_name, x, how...);
            }});
}

template <class T>
void State::put_columns(const std::string& name, const T& x) {
  detail::ColumnWriter column;
  detail::write_column(column, x);
  if constexpr (detail::has_exact_json<T>()) {
    if (column.is_small() && put_small(name, nlohmann::json(x))) return;
  }
  column.put_to(*this, name);
}

template <class T>
requires(detail::IsSupported<T> ||
         std::convertible_to<const T&, std::string_view>) State& State::put(const std::string& name, const T& x) {
  require_name(name);
  add(name, x);
  return *this;
}

template <class T>
void State::add(const std::string& name, const T& x) {
  if constexpr (std::is_convertible_v<const T&, const at::Tensor&>) {
    put_tensor(name, x, /*is_alike=*/false);
  } else if constexpr (detail::IsPart<T>) {
    put_part(name, const_cast<T&>(x));  // a const save() names its object's own members
  } else if constexpr (detail::HasMembers<T>) {
    detail::put_with_parts(*this, name, const_cast<T&>(x));
  } else if constexpr (detail::HasState<T>) {
    State inner = nested(name);
    x.save(inner);
  } else if constexpr (std::convertible_to<const T&, std::string_view>) {
    if (!takes_only_parts()) put_columns(name, std::string(std::string_view(x)));
  } else if constexpr (detail::HasColumns<T>) {
    if constexpr (detail::may_bear_parts<T>()) {
      if (detail::bears_parts(x)) {
        detail::put_with_parts(*this, name, const_cast<T&>(x));
        return;
      }
    }
    if (!takes_only_parts()) put_columns(name, x);
  } else if (!takes_only_parts()) {
    if constexpr (detail::HasTextState<T>) {
      put_value(name, detail::access_text_state(const_cast<T&>(x)).get());
      if constexpr (detail::IsGenerator<T>) note_engine(name);
    } else if constexpr (detail::HasJsonState<T>) {
      put_value(name, x.state());
    } else {
      put_value(name, nlohmann::json(x));
    }
  }
}

template <detail::IsSupported T>
void State::get_to(const std::string& name, T& x) const {
  if constexpr (std::is_same_v<T, at::Tensor>) {
    copy_tensor(name, x);
  } else if constexpr (detail::IsPart<T>) {
    require_part(name);
  } else if constexpr (detail::HasMembers<T>) {
    detail::get_with_parts(*this, name, x);
  } else if constexpr (detail::HasState<T>) {
    x.load(nested(name));
  } else if constexpr (detail::HasColumns<T>) {
    if constexpr (detail::may_bear_parts<T>()) {
      if (has_parts(name)) return detail::get_with_parts(*this, name, x);
    }
    if (detail::ColumnReader::is_there(*this, name)) {
      detail::ColumnReader column(*this, name);
      detail::read_column(column, x);
    } else if constexpr (detail::has_json<T>()) {
      get_json(
          name, [](const nlohmann::json& json, T& into) { json.get_to(into); }, x);
    } else {
      throw_other_type(name, "it was not saved by this library's containers");
    }
  } else if constexpr (detail::HasTextState<T>) {
    get_json(
        name, [](const nlohmann::json& json, T& into) { detail::access_text_state(into).set(json); }, x);
  } else if constexpr (detail::HasJsonState<T>) {
    x.set_state(value(name));
  } else {
    get_json(
        name, [](const nlohmann::json& json, T& into) { json.get_to(into); }, x);
  }
}

template <class T, class Set>
void State::get_json(const std::string& name, Set set, T& x) const {
  const nlohmann::json saved = value(name);
  try {
    if constexpr (std::default_initializable<T> && std::is_move_assignable_v<T> && !detail::HasTextState<T>) {
      T fresh{};  // get_to() adds to what some types hold already
      set(saved, fresh);
      x = std::move(fresh);
    } else {
      set(saved, x);
    }
  } catch (const std::exception& error) {
    throw_other_type(name, error.what());
  }
}

}  // namespace holdfast
