// How tracked objects that are not tensors read and write their JSON form. It may contain non-finite numbers; only
// exact_json.h makes these safe for files.
#pragma once

#include <ATen/core/Generator.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <locale>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace holdfast::detail {

/// Refers to the tracked object. `misfit` throws if `set` would, with a clause such as "is not a whole number", and
/// changes nothing.
struct ValueAccess {
  std::function<nlohmann::json()> get;
  std::function<void(const nlohmann::json&)> misfit;
  std::function<void(const nlohmann::json&)> set;
  std::function<void(std::uint64_t seed)> reseed = {};  // random engines: begins another stream
  std::function<std::string()> change = {};             // a sentence about what `set` found changed, or empty
};

/// `state()` returns JSON and `set_state(json)` restores it, as in Loader. An optional `check_state(json) const` throws
/// if the state is incompatible. The text of an optional `const std::string& change() const` is then logged.
template <class T>
concept HasJsonState = requires(const T& saved, T& loaded, const nlohmann::json& state) {
  { saved.state() } -> std::convertible_to<nlohmann::json>;
  loaded.set_state(state);
};

/// The standard engines and distributions: their text form is their whole state.
template <class T>
concept HasTextState = (std::uniform_random_bit_generator<T> || requires { typename T::param_type; }) &&
                       requires(const T& saved, T& loaded, std::ostream& out, std::istream& in) {
  out << saved;
  in >> loaded;
};

/// A generator, from which each rank draws its own numbers. (Modules are tested for result_type only, because
/// LibTorch's modules cannot be tested for being callable without arguments.)
template <class T>
concept IsGenerator = std::same_as<T, at::Generator> ||
    (requires { typename T::result_type; } && std::uniform_random_bit_generator<T>);

template <class T>
concept HasJsonForm = requires(const T& saved, T& loaded, const nlohmann::json& json) {
  nlohmann::json(saved);
  json.get_to(loaded);
};

template <HasJsonState T>
ValueAccess access_json_state(T& x) {
  ValueAccess access{[&x] { return nlohmann::json(x.state()); },
                     [&x](const nlohmann::json& json) {
                       if constexpr (requires { x.check_state(json); }) x.check_state(json);
                     },
                     [&x](const nlohmann::json& json) { x.set_state(json); }};
  const T& after = x;
  if constexpr (requires {
                  { after.change() } -> std::same_as<const std::string&>;
                }) {
    access.change = [&after] { return after.change(); };
  }
  return access;
}

template <HasTextState T>
ValueAccess access_text_state(T& x) {
  auto parse = [](const nlohmann::json& json, T& into) {
    std::istringstream text(json.get<std::string>());
    text.imbue(std::locale::classic());
    if (!(text >> into)) throw std::invalid_argument("is not the state of a random engine of this type");
  };
  return {[&x] {
            std::ostringstream text;
            text.imbue(std::locale::classic());
            text << x;
            return nlohmann::json(text.str());
          },
          [&x, parse](const nlohmann::json& json) {
            T copy = x;
            parse(json, copy);
          },
          [&x, parse](const nlohmann::json& json) { parse(json, x); },
          [&x](std::uint64_t seed) {
            if constexpr (requires {
                            typename T::result_type;
                            x.seed(typename T::result_type{});
                          }) {
              x.seed(static_cast<typename T::result_type>(seed));
            } else {
              x.reset();
            }
          }};
}

/// Bools, integers within T's range, and floating-point numbers; a signalling NaN in a float is restored as a quiet
/// NaN.
template <class T>
requires std::is_arithmetic_v<T> ValueAccess access_number(T& x) {
  static_assert(sizeof(T) <= 8, "a long double has no exact JSON form: track a double");
  auto check = [](const nlohmann::json& json) {
    if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) throw std::invalid_argument("is not true or false");
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!json.is_number()) throw std::invalid_argument("is not a number");
    } else {
      if (!json.is_number_integer()) throw std::invalid_argument("is not a whole number");
      const bool fits = json.is_number_unsigned()
                            ? json.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())
                            : std::is_signed_v<T> &&
                                  json.get<std::int64_t>() >= static_cast<std::int64_t>(std::numeric_limits<T>::min());
      if (!fits) throw std::invalid_argument("is outside the range of the program's integer type");
    }
  };
  return {[&x] { return nlohmann::json(x); }, check,
          [&x, check](const nlohmann::json& json) {
            check(json);
            x = json.get<T>();
          }};
}

}  // namespace holdfast::detail
