// Reads a plan's tensors.
#pragma once

#include <vector>

#include "holdfast/storage/version_reader.h"
#include "tracked_item.h"

namespace holdfast {

/// Fills every slot, digests checked. Contiguous CPU memory is read into directly; the rest goes through one staging
/// buffer of 256 MB, or of the largest such tensor. Throws Error; the slots then hold unspecified values.
void load_tensors(const storage::VersionReader& version, const std::vector<Slot>& slots,
                  const storage::ReadOptions& options);

}  // namespace holdfast
