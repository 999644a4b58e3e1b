// Classifies at compile time the types that a checkpoint can hold. state.h states what is saved of each.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <complex>
#include <concepts>
#include <memory>
#include <optional>
#include <queue>
#include <ranges>
#include <stack>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>

#include "holdfast/runtime/serialize/object_reference.h"
#include "holdfast/runtime/serialize/resizable.h"
#include "holdfast/runtime/serialize/value_access.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class LRScheduler;
class Optimizer;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace holdfast {

class State;

/// Lets a private holdfast_state() be called: `friend struct holdfast::StateMembers;`.
struct StateMembers {
  template <class Archive, class T>
  requires requires(Archive& archive, T& x) { x.holdfast_state(archive); }
  static void visit(Archive& archive, T& x) { x.holdfast_state(archive); }
};

namespace detail {

/// A user's type with its own `save(State&) const` and `load(const State&)`.
template <class T>
concept HasState = requires(const T& saved, T& loaded, State& state, const State& from) {
  saved.save(state);
  loaded.load(from);
};

/// A minimal archive, to test whether a type has holdfast_state().
struct AnyArchive {
  template <class T>
  AnyArchive& operator()(const char*, T&) {
    return *this;
  }
  template <class T>
  AnyArchive& operator()(const char*, T&, Resizable) {
    return *this;
  }
};

/// A user's type that names its members once, for saving and loading:
///   template <class Archive> void holdfast_state(Archive& a) { a("net", net)("generator", generator); }
/// A tensor or module that grows or shrinks is named as in a("means", means, holdfast::resizable).
template <class T>
concept HasMembers = std::is_class_v<T> && requires(AnyArchive& archive, T& x) {
  StateMembers::visit(archive, x);
};

/// A module, an optimizer, a scheduler or a generator, or a holder of one: it is tracked under its own name, so that
/// optimizers find their parameters by name.
template <class T>
concept IsPart = !HasMembers<T> && !HasState<T> &&
                 (std::derived_from<T, torch::nn::Module> || std::derived_from<T, torch::optim::Optimizer> ||
                  std::derived_from<T, torch::optim::LRScheduler> ||
                  std::derived_from<T, torch::optim::ReduceLROnPlateauScheduler> || std::same_as<T, at::Generator> ||
                  PointsTo<T, torch::nn::Module> || PointsTo<T, torch::optim::Optimizer> ||
                  PointsTo<T, torch::optim::LRScheduler> || PointsTo<T, torch::optim::ReduceLROnPlateauScheduler>);

/// Numbers whose bytes are their whole state.
template <class T>
concept IsNumber =
    std::is_arithmetic_v<T> || std::is_enum_v<T> || std::same_as<T, c10::Half> || std::same_as<T, c10::BFloat16>;

template <class T>
constexpr bool is_complex = false;
template <class T>
constexpr bool is_complex<std::complex<T>> = true;
template <class T>
constexpr bool is_complex<c10::complex<T>> = true;

template <class T>
constexpr bool is_duration = false;
template <class Rep, class Period>
constexpr bool is_duration<std::chrono::duration<Rep, Period>> = true;

template <class T>
constexpr bool is_time_point = false;
template <class Clock, class Duration>
constexpr bool is_time_point<std::chrono::time_point<Clock, Duration>> = true;

template <class T>
constexpr bool is_atomic = false;
template <class T>
constexpr bool is_atomic<std::atomic<T>> = true;

template <class T>
constexpr bool is_bitset = false;
template <std::size_t n>
constexpr bool is_bitset<std::bitset<n>> = true;

/// Pairs, tuples and arrays, including C arrays: every object has the same number of elements.
template <class T>
constexpr bool is_tuple = false;
template <class... T>
constexpr bool is_tuple<std::tuple<T...>> = true;
template <class A, class B>
constexpr bool is_tuple<std::pair<A, B>> = true;

template <class T>
constexpr bool is_fixed_array = std::is_bounded_array_v<T>;
template <class T, std::size_t n>
constexpr bool is_fixed_array<std::array<T, n>> = true;

template <class T>
constexpr bool is_variant = false;
template <class... T>
constexpr bool is_variant<std::variant<T...>> = true;

/// Types that own one object or none.
template <class T>
constexpr bool is_owner = false;
template <class T>
constexpr bool is_owner<std::optional<T>> = true;
template <class T>
constexpr bool is_owner<std::unique_ptr<T>> = true;
template <class T>
constexpr bool is_owner<std::shared_ptr<T>> = true;

template <class T>
constexpr bool is_adaptor = false;
template <class... T>
constexpr bool is_adaptor<std::stack<T...>> = true;
template <class... T>
constexpr bool is_adaptor<std::queue<T...>> = true;
template <class... T>
constexpr bool is_adaptor<std::priority_queue<T...>> = true;

/// The container that a stack or a queue keeps its elements in, in its order.
template <class Adaptor>
auto& container_of(Adaptor& adaptor) {
  using Plain = std::remove_const_t<Adaptor>;
  struct Opened : Plain {
    static auto member() { return &Opened::c; }
  };
  return adaptor.*Opened::member();
}

/// Vectors, deques, lists, sets and maps, and types that behave like them.
template <class T>
concept IsContainer = !std::same_as<T, std::string> && !std::same_as<T, nlohmann::json> &&
                      !std::same_as<T, nlohmann::ordered_json> && std::ranges::sized_range<T> && requires(T & x) {
  typename T::value_type;
  x.clear();
  x.insert(x.end(), std::declval<typename T::value_type>());
};

/// The iteration order depends on how the container was filled.
template <class T>
concept IsUnordered = IsContainer<T> && requires(T& x) {
  x.bucket_count();
  x.rehash(1);
};

/// The type that a container inserts: in it, a map's key is not const.
template <class T>
struct ElementForm {
  using type = T;
};
template <class Key, class Mapped>
struct ElementForm<std::pair<const Key, Mapped>> {
  using type = std::pair<Key, Mapped>;
};
template <class T>
using element_form = typename ElementForm<T>::type;

/// Types that are saved as columns (columns.h) unless they are small, so that the cost depends only on their bytes.
template <class T>
concept HasColumns =
    !IsPart<T> && (IsContainer<T> || is_fixed_array<T> || is_tuple<T> || is_variant<T> || is_owner<T> ||
                   is_adaptor<T> || is_complex<T> || is_duration<T> || is_time_point<T> || is_atomic<T> ||
                   is_bitset<T> || std::same_as<T, std::string> || std::is_enum_v<T>);

/// Whether `is<T>` is true of T or of anything that T, a standard type, consists of.
template <template <class> class is, class T>
constexpr bool is_anywhere();

template <template <class> class is, class... T>
constexpr bool is_in_any(const std::variant<T...>*) {
  return (is_anywhere<is, T>() || ...);
}
template <template <class> class is, class... T>
constexpr bool is_in_any(const std::tuple<T...>*) {
  return (is_anywhere<is, T>() || ...);
}
template <template <class> class is, class A, class B>
constexpr bool is_in_any(const std::pair<A, B>*) {
  return is_anywhere<is, std::remove_const_t<A>>() || is_anywhere<is, B>();
}

template <template <class> class is, class T>
constexpr bool is_anywhere() {
  if constexpr (is<T>::value) {
    return true;
  } else if constexpr (IsPart<T> || HasMembers<T> || HasState<T> || std::same_as<T, std::string>) {
    return false;
  } else if constexpr (is_variant<T> || is_tuple<T>) {
    return is_in_any<is>(static_cast<const T*>(nullptr));
  } else if constexpr (is_owner<T>) {
    return is_anywhere<is, std::remove_cvref_t<decltype(*std::declval<T&>())>>();
  } else if constexpr (is_fixed_array<T>) {
    return is_anywhere<is, std::ranges::range_value_t<T>>();
  } else if constexpr (is_adaptor<T> || IsContainer<T>) {
    return is_anywhere<is, element_form<typename T::value_type>>();
  } else {
    return false;
  }
}

template <class T>
constexpr bool is_simple() {
  if constexpr (IsPart<T>) {
    return true;
  } else {
    return HasState<T> || HasMembers<T> || HasJsonState<T> || HasTextState<T> || IsNumber<T> || HasJsonForm<T> ||
           std::same_as<T, at::Tensor> || std::same_as<T, std::string> || is_bitset<T> || is_complex<T> ||
           is_duration<T> || is_time_point<T> || is_atomic<T> || std::same_as<T, std::monostate>;
  }
}
template <class T>
constexpr bool is_standard =
    is_variant<T> || is_tuple<T> || is_owner<T> || is_fixed_array<T> || is_adaptor<T> || IsContainer<T>;

/// A long double is not supported, because other kinds of machines cannot read it.
template <class T>
struct IsUnsupported {
  static constexpr bool value = [] {
    if constexpr (std::same_as<T, long double>) {
      return true;
    } else if constexpr (IsPart<T>) {
      return false;
    } else if constexpr (is_standard<T>) {
      return false;
    } else {
      return !is_simple<T>();
    }
  }();
};
template <class T>
struct IsUnorderedForm : std::bool_constant<IsUnordered<T>> {};
/// A multimap: nlohmann writes it, but reading it does not compile.
template <class T>
    struct IsMultimapForm : std::bool_constant < IsContainer<T>&& requires {
  typename T::mapped_type;
} && !requires(T & x) {
  x.at(x.begin()->first);
}
> {};
template <class T>
struct MayBearParts : std::bool_constant<IsPart<T> || std::same_as<T, at::Tensor> || HasMembers<T> || HasState<T>> {};
template <class T>
struct IsPartForm : std::bool_constant<IsPart<T>> {};

/// Objects of this type can be saved and loaded.
template <class T>
concept IsSupported = !is_anywhere<IsUnsupported, T>();

/// Whether T may contain something that is tracked under its own name.
template <class T>
constexpr bool may_bear_parts() {
  return is_anywhere<MayBearParts, T>();
}

/// Whether T may have been saved as JSON.
template <class T>
constexpr bool has_json() {
  if constexpr (IsPart<T> || is_anywhere<IsMultimapForm, T>()) {
    return false;
  } else {
    return HasJsonForm<T>;
  }
}

/// Whether JSON represents T exactly: then a small object is saved as JSON, which people can read.
template <class T>
constexpr bool has_exact_json() {
  if constexpr (is_owner<T> || is_adaptor<T> || is_variant<T> || is_complex<T> || is_atomic<T> || is_duration<T> ||
                is_time_point<T> || is_bitset<T> || IsPart<T> || HasMembers<T> || HasState<T>) {
    return false;
  } else {
    return has_json<T>() && !is_anywhere<IsUnorderedForm, T>();
  }
}

}  // namespace detail
}  // namespace holdfast
