// Checks of the parameters of learning-rate curves.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "holdfast/runtime/error.h"

namespace holdfast {

inline constexpr std::string_view kMultipleRange = "a finite number that is at least 0";
inline constexpr std::string_view kFractionRange = "a number from 0 to 1";

/// Throws Error (invalid) unless `right`. `maker`: the function that takes the parameter.
template <class Value>
void require_parameter(bool right, std::string_view maker, std::string_view parameter, const Value& value,
                       std::string_view what_is_right) {
  if (right) return;
  throw Error(storage::StatusCode::invalid,
              fmt::format("{}: {} is {}; it must be {}", maker, parameter, value, what_is_right));
}

// Both are false for NaN.
inline bool is_multiple(double x) { return x >= 0 && std::isfinite(x); }
inline bool is_fraction(double x) { return x >= 0 && x <= 1; }

inline void require_multiple(double x, std::string_view maker, std::string_view parameter) {
  require_parameter(is_multiple(x), maker, parameter, x, kMultipleRange);
}

}  // namespace holdfast
