// Statistics of one tensor, computed while its bytes stream by; memory is one buffer, whatever the tensor's size.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>

#include "inspect/checkpoint.h"

namespace holdfast::tools {

using Number = std::variant<double, std::int64_t, std::uint64_t, std::complex<double>>;
std::string format_number(const Number& number);
/// Integers as integers, complex numbers as [real, imaginary].
nlohmann::ordered_json json_number(const Number& number);

/// Smallest, largest and mean of the elements that are not NaN; empty if there are none. For complex numbers, smallest
/// and largest are those of the magnitudes.
struct TensorStats {
  std::uint64_t elements = 0;
  std::uint64_t nan = 0;
  std::optional<Number> min;
  std::optional<Number> max;
  std::optional<Number> mean;
};

/// `advance(bytes)` is called as bytes are read.
storage::Result<TensorStats> stats_of(const Checkpoint& checkpoint, const storage::TensorEntry& tensor,
                                      const std::function<void(std::uint64_t)>& advance);

}  // namespace holdfast::tools
