// Conversion between LibTorch's element types and those of a checkpoint file.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "holdfast/storage/formats/dtype.h"

namespace holdfast {

/// Empty for the types that safetensors has no name for: complex32, complex128, quantized, bit and sub-byte types.
std::optional<storage::Dtype> to_dtype(c10::ScalarType type);
/// Defined for every storage::Dtype.
c10::ScalarType to_scalar_type(storage::Dtype dtype);

}  // namespace holdfast
