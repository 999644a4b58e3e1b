// One version, opened for reading. Reads only headers and the manifest until tensors are requested.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// The destination of a tensor's bytes: exactly as many as the manifest says, contiguous, owned by the caller.
struct TensorTarget {
  std::string name;
  std::span<std::byte> into;
};

struct ReadOptions {
  bool check_digests = true;
  int threads = 0;  // 0: as many as the machine has, at most 8
};

/// A difference between a version and its manifest.
struct Finding {
  StatusCode code = StatusCode::corrupt;
  std::string file;
  std::string tensor;       // empty if no tensor covers the range
  std::uint64_t begin = 0;  // absolute byte range in the file
  std::uint64_t end = 0;
  std::string what;  // one sentence
};

class VersionReader {
 public:
  /// Reads and checks the manifest, then checks that every file exists with its length. `incomplete`: a file is missing
  /// or short; `corrupt`: the manifest does not match its digest.
  static Result<VersionReader> open(const Store& store, const Uid& uid);
  /// The same with a manifest that the store need not hold yet.
  static Result<VersionReader> open(const Store& store, Manifest manifest);

  const Manifest& manifest() const { return *manifest_; }

  /// Fills every target and checks each digest while it has the bytes. If the targets cover the version, every byte of
  /// every file is checked. Bytes whose digest is wrong are read once more before they count as `corrupt`. After a
  /// failure the targets hold unspecified bytes.
  Status read(const std::vector<TensorTarget>& targets, const ReadOptions& options = {}) const;

  /// Recomputes every digest and compares every payload header with the manifest. Empty if the version is intact.
  /// `progress(done, total)` is called with bytes, from the calling thread.
  std::vector<Finding> verify(const std::function<void(std::uint64_t, std::uint64_t)>& progress = {}) const;

 private:
  VersionReader() = default;
  const Store* store_ = nullptr;
  std::shared_ptr<const Manifest> manifest_;
  std::vector<std::shared_ptr<ObjectReader>> files_;  // as Manifest::files
};

}  // namespace holdfast::storage
