#include "serialize/column_numbers.h"

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

namespace holdfast::detail {

using c10::ScalarType;

namespace {

/// Converts whole numbers; false if one does not fit.
template <class From, class To>
bool convert(const From* from, To* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
      if (!std::in_range<To>(from[i])) return false;
    }
    to[i] = static_cast<To>(from[i]);
  }
  return true;
}

/// Calls `use` with a number of the type; false if it is not an integer type.
template <class Use>
bool with_integer(ScalarType type, Use use) {
  switch (type) {
    case ScalarType::Char:
      use(std::int8_t{});
      return true;
    case ScalarType::Byte:
      use(std::uint8_t{});
      return true;
    case ScalarType::Short:
      use(std::int16_t{});
      return true;
    case ScalarType::UInt16:
      use(std::uint16_t{});
      return true;
    case ScalarType::Int:
      use(std::int32_t{});
      return true;
    case ScalarType::UInt32:
      use(std::uint32_t{});
      return true;
    case ScalarType::Long:
      use(std::int64_t{});
      return true;
    case ScalarType::UInt64:
      use(std::uint64_t{});
      return true;
    default:
      return false;
  }
}

}  // namespace

bool has_exact_json(ScalarType type) {
  return type == ScalarType::Bool || type == ScalarType::Double || with_integer(type, [](auto) {});
}

nlohmann::json number_to_json(ScalarType type, const std::byte* from) {
  nlohmann::json value;
  const auto read = [&](auto x) {
    std::memcpy(&x, from, sizeof x);
    value = x;
  };
  if (type == ScalarType::Bool) {
    read(bool{});
  } else if (type == ScalarType::Double) {
    read(double{});
  } else {
    with_integer(type, read);
  }
  return value;
}

Fits convert_numbers(ScalarType saved, const void* from, ScalarType wanted, void* to, std::size_t count) {
  if (saved == wanted) {
    if (count > 0) std::memcpy(to, from, count * width_of(saved));
    return Fits::yes;
  }
  if (saved == ScalarType::Float && wanted == ScalarType::Double) {
    convert(static_cast<const float*>(from), static_cast<double*>(to), count);
    return Fits::yes;
  }
  bool in_range = true;
  const bool are_integers = with_integer(saved, [&](auto x) {
    const bool known = with_integer(wanted, [&](auto y) {
      in_range = convert(static_cast<const decltype(x)*>(from), static_cast<decltype(y)*>(to), count);
    });
    if (!known) in_range = false;
  });
  if (!are_integers || !with_integer(wanted, [](auto) {})) return Fits::other_type;
  return in_range ? Fits::yes : Fits::out_of_range;
}

}  // namespace holdfast::detail
