// Verifies one payload file of a version in one pass.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// Recomputes the digests of the file, of its header and of each tensor that lies completely in it, and compares the
/// header with the manifest. Use an object once.
class FileVerifier {
 public:
  /// `file` is an index into Manifest::files. Findings are added to `findings`.
  FileVerifier(const Manifest& manifest, std::size_t file, const ObjectReader& object, std::vector<Finding>& findings);

  /// Reads through `buffer`; calls `done(bytes)` after every piece.
  void run(std::span<std::byte> buffer, const std::function<void(std::uint64_t)>& done);

 private:
  using Placed = std::pair<const TensorPart*, const TensorEntry*>;

  void add(StatusCode code, const std::string& tensor, std::uint64_t begin, std::uint64_t end, const std::string& what);
  /// The digest of a range, which is also added to the file's digest. Empty after a failed read, which is a finding.
  std::optional<Digest> range(const std::string& tensor, std::uint64_t begin, std::uint64_t end);
  void check_header();

  const FileEntry& entry_;
  const ObjectReader& object_;
  std::vector<Finding>& findings_;
  std::vector<Placed> placed_;  // the tensors in this file, by position
  bool own_ = false;  // written by this version; a file of an older one may hold tensors that this one does not use
  DigestStream whole_;
  std::span<std::byte> buffer_;
  std::function<void(std::uint64_t)> done_;
};

}  // namespace holdfast::storage
