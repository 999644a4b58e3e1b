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

/// The slot's tensor from its row-major bytes, on any device.
void fill_from_bytes(const Slot& slot, const at::Tensor& bytes);
/// The row-major bytes of a slot that is filled, as a flat tensor on its device.
at::Tensor bytes_of(const Slot& slot);

}  // namespace holdfast
