// Brings one tensor's bytes from a version's files into memory, with its digest computed on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// As Manifest::files.
using Files = std::vector<std::shared_ptr<ObjectReader>>;

/// What is read at once, to be hashed while the processor's cache still holds it.
inline constexpr std::uint64_t kReadPieceBytes = 1 << 20;

/// Whether the tensor lies in one file as it is.
inline bool is_whole(const TensorEntry& tensor) { return tensor.parts.size() == 1 && tensor.parts[0].offset.empty(); }

/// Fills `into`, which is as long as the tensor, and sets `digest` where it is not null. `read_ahead`: another thread
/// reads while this one hashes.
Status read_tensor(const Files& files, const TensorEntry& tensor, std::span<std::byte> into, bool read_ahead,
                   Digest* digest);

}  // namespace holdfast::storage
