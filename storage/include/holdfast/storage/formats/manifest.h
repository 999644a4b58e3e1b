// The manifest: the journal's save entry. It names everything one version consists of, with lengths and digests; a
// version exists exactly when its manifest does. FORMAT.md gives the grammar and a worked example.
#pragma once

#include <boost/container/small_vector.hpp>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/formats/dtype.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/object_name.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// The format version that this library writes; readers refuse a larger one as `unsupported`.
inline constexpr int kFormatVersion = 1;

/// A reader treats a larger manifest as damaged.
inline constexpr std::uint64_t kMaxManifestBytes = kMaxObjectBytes;

struct FileEntry {
  std::string name;  // "data/…"
  std::uint64_t bytes = 0;
  Digest digest;                   // of the whole file
  std::uint64_t header_bytes = 0;  // everything before the first tensor byte
  Digest header_digest;            // of those bytes, so that a load that reads every tensor checks every byte
};

/// A box of a tensor, stored contiguously in one file.
struct TensorPart {
  std::size_t file = 0;     // index into Manifest::files
  std::uint64_t begin = 0;  // absolute byte range in that file
  std::uint64_t end = 0;
  std::vector<std::int64_t> offset;  // of the box in the tensor; empty: the whole tensor
  std::vector<std::int64_t> extent;
};

struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  Digest digest;  // of the tensor's bytes, row-major, little-endian
  boost::container::small_vector<TensorPart, 1> parts;
  std::uint64_t non_finite = 0;  // how many of its numbers are NaN or infinite
  std::uint64_t bytes() const;
};

/// The position of the run in its training. `step` counts optimizer boundaries over the whole run.
struct Position {
  std::uint64_t step = 0;
  std::uint64_t epoch = 0;
  std::uint64_t samples = 0;
};

struct Manifest {
  Uid uid;
  std::uint64_t epoch = 0;    // of the session's open entry: how often the run was taken over
  std::optional<Uid> parent;  // the version this one continues
  std::string run;
  std::string time;    // RFC 3339, UTC, of the writer's clock: for human readers
  std::string reason;  // why it was saved: "every 500 steps", "SIGTERM", "end"
  Position position;
  int world_size = 1;
  std::string durability;                             // "process-safe" | "fsynced": what the home store guarantees
  std::optional<std::uint64_t> non_finite;            // of all tensors; empty: its writer did not count
  nlohmann::json metrics = nlohmann::json::object();  // the user's, numbers by name
  nlohmann::json values = nlohmann::json::object();   // small non-tensor state
  nlohmann::json made_by = nlohmann::json::object();  // versions, platform, seeds, what bit-exactness needs
  nlohmann::json cost = nlohmann::json::object();     // of the previous save: seconds, bytes
  std::vector<std::string> needs_features;            // a reader that does not know one of them refuses
  std::vector<FileEntry> files;
  std::vector<TensorEntry> tensors;         // sorted by name
  std::map<std::string, std::string> tied;  // alias → the name its bytes are stored under

  const TensorEntry* find(std::string_view tensor) const;  // follows `tied`
  std::uint64_t payload_bytes() const;
};

/// The entry's exact bytes: one tensor a line; the last line digests all bytes before it.
std::string encode(const Manifest& manifest);
/// encode(), with all checks of decode_manifest(), by the same functions and constants: `invalid` for a manifest that
/// it would refuse. Above `limit` bytes the error names the largest values.
Result<std::string> encode_checked(const Manifest& manifest, std::uint64_t limit = kMaxManifestBytes);
/// Whether the user's parts of a version (metrics, values, made_by) can be written and read back: they nest no deeper
/// than a reader allows, and no two keys of an object become equal. Cheap enough to call before any payload is written.
Status check_values(const Manifest& manifest);
/// `corrupt` names what is wrong; `unsupported` for a newer format or an unknown feature.
Result<Manifest> decode_manifest(std::string_view bytes);

}  // namespace holdfast::storage
