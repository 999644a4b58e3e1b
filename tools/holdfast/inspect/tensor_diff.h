// Compares two tensors element by element while their bytes stream by; memory is two buffers.
#pragma once

#include <cstdint>
#include <functional>

#include "inspect/checkpoint.h"

namespace holdfast::tools {

/// Elements differ where their bits differ. So equal NaNs are equal, and 0 and -0 differ (with an absolute difference
/// of 0).
struct TensorDiff {
  std::uint64_t elements = 0;
  std::uint64_t differing = 0;
  std::uint64_t nan_on_one_side = 0;  // these have no difference to measure
  double max_abs = 0;                 // over the differing elements
  std::uint64_t max_at = 0;           // its row-major element number
};

/// REQUIRES: the same number of elements. If the dtypes differ, values are compared. `advance(bytes)` is called as
/// bytes of `a` are read.
storage::Result<TensorDiff> compare(const Checkpoint& a, const storage::TensorEntry& a_tensor, const Checkpoint& b,
                                    const storage::TensorEntry& b_tensor,
                                    const std::function<void(std::uint64_t)>& advance);

}  // namespace holdfast::tools
