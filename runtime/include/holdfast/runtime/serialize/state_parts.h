// Objects, and containers of objects, that contain modules, optimizers, schedulers, generators or parameters. These are
// put as parts, each under its own name ("agents.0.net"); everything else is put as usual.
//
// In addition, "name:parts" is the number of elements of a container, "name:present" tells whether a pointer or an
// optional holds something, and "name:index" is the alternative of a variant. Loading requires the same numbers.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/serialize/state.h"
#include "holdfast/runtime/serialize/state_forms.h"

namespace holdfast::detail {

template <class T>
bool bears_parts(const T& x);

struct PartsProbe {
  template <class T>
  PartsProbe& operator()(const char*, const T& member) {
    found = found || bears_parts(member);
    return *this;
  }
  template <class T>
  PartsProbe& operator()(const char* name, const T& member, Resizable) {
    return (*this)(name, member);
  }
  bool found = false;
};

/// Whether there is anything in `x` that has to be tracked under a name of its own.
template <class T>
bool bears_parts(const T& x) {
  if constexpr (IsPart<T>) {
    return true;
  } else if constexpr (std::same_as<T, at::Tensor>) {
    return x.defined() && x.requires_grad();
  } else if constexpr (HasMembers<T>) {
    PartsProbe probe;
    StateMembers::visit(probe, const_cast<T&>(x));
    return probe.found;
  } else if constexpr (!may_bear_parts<T>() || HasState<T>) {
    return false;
  } else if constexpr (is_tuple<T>) {
    return std::apply([](const auto&... element) { return (bears_parts(element) || ...); }, x);
  } else if constexpr (is_variant<T>) {
    return std::visit([](const auto& held) { return bears_parts(held); }, x);
  } else if constexpr (is_owner<T>) {
    return x && bears_parts(std::as_const(*x));
  } else if constexpr (is_fixed_array<T> || IsContainer<T>) {
    return std::ranges::any_of(x, [](const auto& element) { return bears_parts(element); });
  } else {
    return false;
  }
}

/// Visits the parts of an object and its values without parts. Act is PartsWriter or PartsReader: part(name, x, how…),
/// value(name, x), size(name, mark, n) and nested(name).
template <class Act>
struct PartsWalk {
  template <class T>
  void visit(const std::string& name, T& x) {
    if constexpr (IsPart<T> || std::same_as<T, at::Tensor>) {
      act.part(name, x);
    } else if constexpr (HasMembers<T>) {
      Archive archive{act.nested(name)};
      StateMembers::visit(archive, x);
    } else if constexpr (HasState<T> || is_adaptor<T> || !may_bear_parts<T>()) {
      act.value(name, x);
    } else if constexpr (is_tuple<T>) {
      act.size(name, ":parts", std::tuple_size_v<T>);
      std::size_t i = 0;
      std::apply([&](auto&... element) { (visit(name + "." + std::to_string(i++), element), ...); }, x);
    } else if constexpr (is_variant<T>) {
      act.size(name, ":index", x.index());
      std::visit([&](auto& held) { visit(name, held); }, x);
    } else if constexpr (is_owner<T>) {
      act.size(name, ":present", x ? 1 : 0);
      if (x) visit(name, *x);
    } else {
      act.size(name, ":parts", std::ranges::size(x));
      std::size_t i = 0;
      for (auto&& element : x) {
        if constexpr (requires { typename T::mapped_type; }) {
          visit(name + "." + key_text(element.first, i++), element.second);
        } else {
          visit(name + "." + std::to_string(i++), const_cast<std::remove_cvref_t<decltype(element)>&>(element));
        }
      }
    }
  }

  /// The name of a map's element.
  template <class Key>
  static std::string key_text(const Key& key, std::size_t i) {
    if constexpr (std::convertible_to<const Key&, std::string>) {
      return key;
    } else if constexpr (std::integral<Key>) {
      return std::to_string(key);
    } else {
      return std::to_string(i);
    }
  }

  struct Archive {
    template <class T>
    Archive& operator()(const char* name, T& member) {
      using Member = std::remove_const_t<T>;
      static_assert(IsSupported<Member>,
                    "holdfast_state() names a member of a type that cannot be saved: holdfast/runtime/serialize/"
                    "state.h lists the types that can");
      if constexpr (IsPart<Member> || std::same_as<Member, at::Tensor>) {
        act.part(name, const_cast<Member&>(member));
      } else {
        act.value(name, member);
      }
      return *this;
    }
    template <class T>
    Archive& operator()(const char* name, T& member, Resizable) {
      static_assert(HasTensorsToResize<T>, "holdfast::resizable is for a tensor or a module: name it without");
      act.part(name, member, resizable);
      return *this;
    }
    Act act;
  };

  Act act;
};

class PartsWriter {
 public:
  explicit PartsWriter(const State& state) : state_(state) {}
  template <class T, class... How>
  void part(const std::string& name, T& x, How... how) {
    state_.put_part(name, x, how...);
  }
  template <class T>
  void value(const std::string& name, const T& x) {
    state_.add(name, x);
  }
  void size(const std::string& name, const char* mark, std::size_t n) { state_.put_value(name + mark, n); }
  PartsWriter nested(const std::string& name) const { return PartsWriter(state_.nested(name)); }

 private:
  State state_;  // a view
};

class PartsReader {
 public:
  explicit PartsReader(const State& state) : state_(state) {}
  template <class T, class... How>
  void part(const std::string& name, T&, How...) {
    state_.require_part(name);
  }
  template <class T>
  void value(const std::string& name, T& x) {
    state_.get_to(name, x);
  }
  void size(const std::string& name, const char* mark, std::size_t n) {
    const auto saved = state_.get<std::size_t>(name + mark);
    if (saved == n) return;
    throw Error(storage::StatusCode::misfit,
                "'" + name +
                    "' holds modules, optimizers, schedulers, generators or parameters, and has another size in "
                    "the checkpoint (" +
                    std::to_string(saved) + ", here " + std::to_string(n) +
                    "): give it the saved size before the loop begins");
  }
  PartsReader nested(const std::string& name) const { return PartsReader(state_.nested(name)); }

 private:
  State state_;  // a view
};

template <class T>
void put_with_parts(State& state, const std::string& name, T& x) {
  PartsWalk<PartsWriter>{PartsWriter(state)}.visit(name, x);
}

template <class T>
void get_with_parts(const State& state, const std::string& name, T& x) {
  PartsWalk<PartsReader>{PartsReader(state)}.visit(name, x);
}

}  // namespace holdfast::detail
