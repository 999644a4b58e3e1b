// How many bytes a tensor has, without trusting its shape.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "holdfast/storage/formats/dtype.h"

namespace holdfast::storage {

/// Empty if an extent is negative or if a product, computed from left to right like in the safetensors reference
/// reader, does not fit 64 bits.
inline std::optional<std::uint64_t> tensor_bytes(Dtype dtype, const std::vector<std::int64_t>& shape) {
  std::uint64_t product = 1;
  for (std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(product, static_cast<std::uint64_t>(extent), &product))
      return std::nullopt;
  }
  if (__builtin_mul_overflow(product, std::uint64_t{element_size(dtype)}, &product)) return std::nullopt;
  return product;
}

}  // namespace holdfast::storage
