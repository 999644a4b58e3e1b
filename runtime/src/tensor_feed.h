// Where a restore's tensors come from: a version in a store, or the rank that reads one.
#pragma once

#include <vector>

#include "holdfast/runtime/fit.h"
#include "tracked_item.h"

namespace holdfast {

class TensorFeed {
 public:
  virtual ~TensorFeed() = default;
  /// Before anything is overwritten: throws Error(misfit) with every difference unless the checkpoint fits.
  virtual void require(const Fit& fit) = 0;
  /// Fills every slot with bytes whose digests are right, or throws; the slots then hold unspecified values.
  virtual void fill(const std::vector<Slot>& slots) = 0;
};

}  // namespace holdfast
