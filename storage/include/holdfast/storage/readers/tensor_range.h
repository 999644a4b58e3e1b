// Reads a part of a tensor without reading the whole: for statistics and comparisons of tensors larger than memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// In the order of Manifest::files.
using Files = std::vector<std::shared_ptr<ObjectReader>>;

/// Fills `into` with the tensor's bytes from `offset` on, in row-major order, wherever its parts lie. Checks no digest.
/// REQUIRES: the range lies in the tensor; the files of the tensor's parts are not null.
Status read_tensor_range(const Files& files, const TensorEntry& tensor, std::uint64_t offset,
                         std::span<std::byte> into);

}  // namespace holdfast::storage
