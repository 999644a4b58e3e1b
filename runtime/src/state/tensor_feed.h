// Where a restore's tensors come from: a version in a store, or the rank that reads one.
#pragma once

#include <vector>

#include "state/compatibility.h"
#include "tensors/load_target.h"

namespace holdfast {

class TensorFeed {
 public:
  virtual ~TensorFeed() = default;
  /// Before anything is overwritten: throws Error(misfit) with every difference unless the checkpoint fits.
  virtual void require(const Compatibility& fit) = 0;
  /// Fills every target with bytes whose digests are right, or throws; the targets then hold unspecified values.
  virtual void fill(const std::vector<LoadTarget>& targets) = 0;
};

}  // namespace holdfast
