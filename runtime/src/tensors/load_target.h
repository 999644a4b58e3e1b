// A tensor that a restore fills from the checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast {

/// `entry` belongs to the manifest that is restored, which must outlive the target.
struct LoadTarget {
  const storage::TensorEntry* entry = nullptr;
  std::shared_ptr<at::Tensor> tensor;  // undefined: created while loading, from the two fields below
  at::Device device = at::kCPU;
  std::vector<std::int64_t> strides;  // empty: contiguous
};

}  // namespace holdfast
