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
#include "inspect/run_folder.h"

namespace holdfast::tools {

/// What a VERSION on the command line names.
struct Target {
  std::shared_ptr<const RunFolder> run;  // null: a plain file
  storage::Uid uid;
  storage::Path file;
  std::vector<storage::PassedOver> passed_over;  // newer versions that cannot be loaded
};

/// "version 42 of run mnist".
std::string title_of(const RunFolder& run, const storage::Uid& uid);

/// Parses RUN, RUN/42, RUN@42, or the path of a manifest or a safetensors file; `number` is a second word. A run
/// without a number means its latest version: with `loadable` the newest that has all its files, else the one that a
/// session would try first.
storage::Result<Target> find_target(const std::string& text, const std::string& number, bool loadable);

struct Checkpoint {
  std::string title;
  storage::Path path;          // the run's folder or the file
  bool is_version = false;     // false: a plain safetensors file, without digests, position and values
  storage::Manifest manifest;  // for a plain file: one file, its tensors, and nothing else
  storage::Digest manifest_digest;
  std::size_t tensors = 0;                      // number of tensors in the manifest
  std::map<std::string, std::string> metadata;  // of a plain file
  std::vector<std::shared_ptr<storage::ObjectReader>> files;
  storage::Status damage;  // ok, or the first file that is missing or has another length

  std::vector<std::string> tensor_names() const;  // tied names too, sorted
};

storage::Result<Checkpoint> open_version(const RunFolder& run, const storage::Uid& uid);
/// Like open_version(), but without the manifest's tensors, ties and values: for lists, in a fraction of the time.
storage::Result<Checkpoint> open_version_head(const RunFolder& run, const storage::Uid& uid);
storage::Result<Checkpoint> open_safetensors(const storage::Path& file);
storage::Result<Checkpoint> open_checkpoint(const Target& target);

/// Fills `into` with a tensor's bytes from `offset` on, in row-major order, wherever its parts lie. `offset` and the
/// size of `into` are multiples of the element's size.
storage::Status read_tensor(const Checkpoint& checkpoint, const storage::TensorEntry& tensor, std::uint64_t offset,
                            std::span<std::byte> into);

}  // namespace holdfast::tools
