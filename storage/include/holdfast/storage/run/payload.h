// Writes one rank's payload file: step S2 of a save.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "holdfast/storage/formats/dtype.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// A tensor to save. `copy(offset, into)` writes the tensor's bytes [offset, offset + into.size()) to `into`; it is
/// called in order, from the saving thread, and must give the same bytes until the save is over.
struct TensorSource {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::function<void(std::uint64_t offset, std::span<std::byte> into)> copy;

  /// The size of the tensor.
  std::uint64_t bytes() const;
  /// Copies the tensor's bytes and passes them to `visit` in order, in pieces of up to 1 MiB.
  void each_piece(const std::function<void(std::span<const std::byte>)>& visit) const;
  /// The digest of its bytes, as in the manifest.
  Digest digest() const;
};

/// What one rank wrote: sent to rank 0 in S3. Tensor parts name file 0.
struct PayloadTable {
  FileEntry file;
  std::vector<TensorEntry> tensors;
};

/// Streams the sources into a new safetensors object and makes its bytes durable. On the way it hashes the file and
/// the tensors and counts numbers that are not finite.
/// Memory: the store's write buffers, independent of the tensors' sizes. Any failure voids the object.
Result<PayloadTable> write_payload(Store& store, const std::string& name,
                                   const std::map<std::string, std::string>& metadata,
                                   std::vector<TensorSource> sources);

}  // namespace holdfast::storage
