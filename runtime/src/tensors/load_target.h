// A tensor that a restore fills from the checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast {

/// `entry` belongs to the manifest that is restored, and lives at least as long.
struct LoadTarget {
  const storage::TensorEntry* entry = nullptr;
  std::shared_ptr<at::Tensor> tensor;  // undefined: made while loading, with the two below
  at::Device device = at::kCPU;
  std::vector<std::int64_t> strides;  // empty: contiguous
};

}  // namespace holdfast
