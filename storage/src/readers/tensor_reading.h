// Reads one tensor's bytes from a version's files into memory and computes its digest on the way.
#pragma once

#include <cstdint>
#include <span>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/readers/tensor_range.h"
#include "holdfast/storage/status.h"

namespace holdfast::storage {

/// The size of one read, small enough that the processor's cache still holds the bytes when they are hashed.
inline constexpr std::uint64_t kReadPieceBytes = 1 << 20;

/// Whether the tensor is stored as one contiguous part.
inline bool is_whole(const TensorEntry& tensor) { return tensor.parts.size() == 1 && tensor.parts[0].offset.empty(); }

/// Fills `into`, which is as long as the tensor, and sets `digest` if it is not null. `read_ahead`: another thread
/// reads while this one hashes.
Status read_tensor(const Files& files, const TensorEntry& tensor, std::span<std::byte> into, bool read_ahead,
                   Digest* digest);

}  // namespace holdfast::storage
