// The source of a restore's tensors: a version in a store, or the rank that reads one.
#pragma once

#include <vector>

#include "snapshot/compatibility.h"
#include "tensors/load_target.h"

namespace holdfast {

class TensorFeed {
 public:
  virtual ~TensorFeed() = default;
  /// Called before anything is overwritten: throws Error(misfit) with every difference unless `fit` is ok.
  virtual void require(const Compatibility& fit) = 0;
  /// Fills every target with bytes whose digests are verified, or throws; the targets then hold unspecified values.
  virtual void fill(const std::vector<LoadTarget>& targets) = 0;
};

}  // namespace holdfast
