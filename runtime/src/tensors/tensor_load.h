// Reads the tensors of a restore plan from a version.
#pragma once

#include <vector>

#include "holdfast/storage/readers/version_reader.h"
#include "tensors/load_target.h"

namespace holdfast {

/// Fills every target and checks digests. Contiguous CPU memory is read into directly; other tensors go through one
/// staging buffer of 256 MB, or of the largest such tensor. Throws Error; the targets then hold unspecified values.
void load_tensors(const storage::VersionReader& version, const std::vector<LoadTarget>& targets,
                  const storage::ReadOptions& options);

/// Fills the target's tensor from its row-major bytes, which may be on any device.
void fill_from_bytes(const LoadTarget& target, const at::Tensor& bytes);
/// The row-major bytes of a filled target, as a flat tensor on its device.
at::Tensor bytes_of(const LoadTarget& target);

}  // namespace holdfast
