// Objects and containers of objects with modules, optimizers, schedulers, generators or parameters in them: these are
// put as parts, each under a name of its own ("agents.0.net"); the rest is put as usual.
//
// Besides: "name:parts" how many elements a container has, "name:present" whether a pointer or an optional holds
// something, "name:index" the alternative of a variant. A checkpoint is loaded into as many.
#pragma once

#include <algorithm>
#include <ranges>
#include <string>
#include <tuple>
#include <utility>
#include <variant>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/state.h"
#include "holdfast/runtime/state_forms.h"

namespace holdfast {

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

class PartsWriter {
 public:
  explicit PartsWriter(State& state) : state_(state) {}

  template <class T>
  void put(const std::string& name, T& x) {
    if constexpr (IsPart<T> || std::same_as<T, at::Tensor>) {
      state_.put_part(name, x);
    } else if constexpr (HasMembers<T>) {
      State inner = state_.nested(name);
      Archive archive{inner};
      StateMembers::visit(archive, x);
    } else if constexpr (HasState<T> || !may_bear_parts<T>()) {
      state_.put(name, x);
    } else if constexpr (is_tuple<T>) {
      put_size(name, ":parts", std::tuple_size_v<T>);
      std::size_t i = 0;
      std::apply([&](auto&... element) { (put(name + "." + std::to_string(i++), element), ...); }, x);
    } else if constexpr (is_variant<T>) {
      put_size(name, ":index", x.index());
      std::visit([&](auto& held) { put(name, held); }, x);
    } else if constexpr (is_owner<T>) {
      put_size(name, ":present", x ? 1 : 0);
      if (x) put(name, *x);
    } else if constexpr (is_fixed_array<T> || IsContainer<T>) {
      put_size(name, ":parts", std::ranges::size(x));
      std::size_t i = 0;
      for (auto&& element : x) {
        if constexpr (requires { typename T::mapped_type; }) {
          put(name + "." + key_text(element.first, i++), element.second);
        } else {
          put(name + "." + std::to_string(i++), const_cast<std::remove_cvref_t<decltype(element)>&>(element));
        }
      }
    } else {
      state_.put(name, x);
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

 private:
  struct Archive {
    template <class T>
    Archive& operator()(const char* name, T& member) {
      using Member = std::remove_const_t<T>;
      static_assert(IsSupported<Member>,
                    "holdfast_state() names a member of a type that cannot be saved: holdfast/runtime/state.h says "
                    "which can");
      if constexpr (IsPart<Member> || std::same_as<Member, at::Tensor>) {
        state.put_part(name, const_cast<Member&>(member));
      } else {
        state.put(name, member);
      }
      return *this;
    }
    template <class T>
    Archive& operator()(const char* name, T& member, Resizable) {
      static_assert(HasTensorsToResize<T>, "holdfast::resizable is for a tensor or a module: name it without");
      state.put_resizable_part(name, member);
      return *this;
    }
    State& state;
  };

  void put_size(const std::string& name, const char* what, std::size_t size) {
    if (!state_.takes_only_parts()) state_.put_value(name + what, size);
  }

  State& state_;
};

class PartsReader {
 public:
  explicit PartsReader(const State& state) : state_(state) {}

  template <class T>
  void get(const std::string& name, T& x) {
    if constexpr (IsPart<T> || std::same_as<T, at::Tensor>) {
      state_.require_part(name);
    } else if constexpr (HasMembers<T>) {
      const State inner = state_.nested(name);
      Archive archive{inner};
      StateMembers::visit(archive, x);
    } else if constexpr (HasState<T> || !may_bear_parts<T>()) {
      state_.get_to(name, x);
    } else if constexpr (is_tuple<T>) {
      std::size_t i = 0;
      std::apply([&](auto&... element) { (get(name + "." + std::to_string(i++), element), ...); }, x);
    } else if constexpr (is_variant<T>) {
      require_size(name, ":index", x.index());
      std::visit([&](auto& held) { get(name, held); }, x);
    } else if constexpr (is_owner<T>) {
      require_size(name, ":present", x ? 1 : 0);
      if (x) get(name, *x);
    } else if constexpr (is_fixed_array<T> || IsContainer<T>) {
      require_size(name, ":parts", std::ranges::size(x));
      std::size_t i = 0;
      for (auto&& element : x) {
        if constexpr (requires { typename T::mapped_type; }) {
          get(name + "." + PartsWriter::key_text(element.first, i++), element.second);
        } else {
          get(name + "." + std::to_string(i++), const_cast<std::remove_cvref_t<decltype(element)>&>(element));
        }
      }
    } else {
      state_.get_to(name, x);
    }
  }

 private:
  struct Archive {
    template <class T>
    Archive& operator()(const char* name, T& member) {
      if constexpr (IsPart<T> || std::same_as<T, at::Tensor>) {
        state.require_part(name);
      } else {
        state.get_to(name, member);
      }
      return *this;
    }
    template <class T>
    Archive& operator()(const char* name, T& member, Resizable) {
      return (*this)(name, member);
    }
    const State& state;
  };

  void require_size(const std::string& name, const char* what, std::size_t size) {
    const auto saved = state_.get<std::size_t>(name + what);
    if (saved == size) return;
    throw Error(storage::StatusCode::misfit,
                "'" + name +
                    "' holds modules, optimizers, schedulers, generators or parameters, and is another size in "
                    "the checkpoint (" +
                    std::to_string(saved) + ", here " + std::to_string(size) + "): make as many before the loop");
  }

  const State& state_;
};

template <class T>
void put_with_parts(State& state, const std::string& name, T& x) {
  PartsWriter(state).put(name, x);
}

template <class T>
void get_with_parts(const State& state, const std::string& name, T& x) {
  PartsReader(state).get(name, x);
}

}  // namespace holdfast
