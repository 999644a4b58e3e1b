// One thing to inspect: a version of a run, or any plain safetensors file. Opening it reads the manifest or the header
// and queries lengths; tensor bytes are read on demand, piece by piece.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/readers/tensor_range.h"
#include "inspect/run_folder.h"
#include "inspect/target.h"

namespace holdfast::tools {

struct Checkpoint {
  std::string title;
  storage::Path path;          // the run's folder or the file
  bool is_version = false;     // false: a plain safetensors file, without digests, position and values
  storage::Manifest manifest;  // for a plain file: one file, its tensors, and nothing else
  storage::Digest manifest_digest;
  std::size_t tensors = 0;                      // number of tensors in the manifest
  std::map<std::string, std::string> metadata;  // of a plain file
  storage::Files files;                         // null: cannot be opened
  storage::Status damage;                       // ok, or the first file that is missing or has another length

  std::vector<std::string> tensor_names() const;  // tied names too, sorted
};

storage::Result<Checkpoint> open_version(const RunFolder& run, const storage::Uid& uid);
/// Like open_version(), but without the manifest's tensors, ties and values: for lists, in a fraction of the time.
storage::Result<Checkpoint> open_version_head(const RunFolder& run, const storage::Uid& uid);
storage::Result<Checkpoint> open_safetensors(const storage::Path& file);
storage::Result<Checkpoint> open_checkpoint(const Target& target);

/// storage::read_tensor_range(), or the damage if one of the tensor's files cannot be opened.
storage::Status read_tensor(const Checkpoint& checkpoint, const storage::TensorEntry& tensor, std::uint64_t offset,
                            std::span<std::byte> into);

}  // namespace holdfast::tools
