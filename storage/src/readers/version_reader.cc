#include "holdfast/storage/readers/version_reader.h"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "holdfast/storage/parallel.h"
#include "holdfast/storage/text/text.h"
#include "readers/file_verifier.h"
#include "readers/tensor_reading.h"

namespace holdfast::storage {
namespace {

// A tensor from this size on may get a second thread: one reads ahead while the other hashes.
constexpr std::uint64_t kReadAheadBytes = 32 << 20;

std::string range_text(std::uint64_t begin, std::uint64_t end) {
  return "bytes " + std::to_string(begin) + " to " + std::to_string(end);
}

/// A tensor and its location, for messages: "tensor "w" (bytes 4096 to 8192 of data/…)".
std::string place_of(const TensorEntry& tensor, const Manifest& manifest) {
  std::string text = "tensor " + in_quotes(tensor.name) + " (";
  for (std::size_t i = 0; i < tensor.parts.size(); ++i) {
    const TensorPart& part = tensor.parts[i];
    if (i > 0) text += ", ";
    text += range_text(part.begin, part.end) + " of " + manifest.files[part.file].name;
  }
  return text + ")";
}

}  // namespace

Result<VersionReader> VersionReader::open(const Store& store, const Uid& uid) {
  const std::string name = entry_name(uid, EntryKind::save);
  const auto bytes = store.get(name);
  if (!bytes) return bytes.status();
  auto manifest = decode_manifest(*bytes);
  if (!manifest) return Status(manifest.code(), name + ": " + manifest.status().message());
  if (manifest->uid != uid) {
    return Status(StatusCode::corrupt, name + " is the manifest of another version, " + manifest->uid.text());
  }
  return open(store, *std::move(manifest));
}

Result<VersionReader> VersionReader::open(const Store& store, Manifest manifest) {
  VersionReader reader;
  reader.store_ = &store;
  for (const FileEntry& file : manifest.files) {
    auto object = store.open(file.name);
    if (!object && object.code() == StatusCode::not_found) {
      return Status(StatusCode::incomplete, "version " + manifest.uid.short_text() + " lacks its file " + file.name);
    }
    if (!object) return object.status();
    const std::uint64_t there = (*object)->bytes();
    if (there != file.bytes) {
      return Status(there < file.bytes ? StatusCode::incomplete : StatusCode::corrupt,
                    file.name + " has " + std::to_string(there) + " bytes instead of " + std::to_string(file.bytes));
    }
    reader.files_.push_back(*std::move(object));
  }
  reader.manifest_ = std::make_shared<const Manifest>(std::move(manifest));
  return reader;
}

Status VersionReader::read(const std::vector<TensorTarget>& targets, const ReadOptions& options) const {
  struct Job {
    const TensorEntry* tensor = nullptr;  // null: the header of `file`
    std::size_t file = 0;
    std::span<std::byte> into;
    std::uint64_t bytes = 0;
  };
  std::vector<Job> jobs;
  std::uint64_t total = 0;
  std::vector<bool> check_header(files_.size(), options.check_digests);
  for (const TensorTarget& target : targets) {
    const TensorEntry* tensor = manifest_->find(target.name);
    if (!tensor) {
      return {StatusCode::invalid,
              "version " + manifest_->uid.short_text() + " has no tensor " + in_quotes(target.name)};
    }
    if (target.into.size() != tensor->bytes()) {
      return {StatusCode::invalid, "tensor " + in_quotes(target.name) + " has " + std::to_string(tensor->bytes()) +
                                       " bytes, the target has room for " + std::to_string(target.into.size())};
    }
    jobs.push_back({tensor, 0, target.into, target.into.size()});
    total += target.into.size();
  }
  if (options.check_digests) {
    // A file's header is checked if any of its tensors is read, and always if the file has no tensors.
    for (const TensorEntry& tensor : manifest_->tensors) {
      for (const TensorPart& part : tensor.parts) check_header[part.file] = false;
    }
    for (const Job& job : jobs) {
      for (const TensorPart& part : job.tensor->parts) check_header[part.file] = true;
    }
    for (std::size_t file = 0; file < files_.size(); ++file) {
      if (check_header[file]) jobs.push_back({nullptr, file, {}, manifest_->files[file].header_bytes});
    }
  }
  // The largest first, so that a large one does not run alone at the end.
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.bytes > b.bytes; });

  const int threads = options.threads > 0 ? options.threads : thread_count();
  const auto read_header = [&](const FileEntry& entry, const ObjectReader& file, Digest& digest) -> Status {
    std::vector<std::byte> header(entry.header_bytes);
    if (Status status = file.read(0, header); !status) return status;
    digest = digest_of(std::span<const std::byte>(header));
    return {};
  };
  Status status = in_parallel(jobs.size(), threads, [&](std::size_t i) -> Status {
    const Job& job = jobs[i];
    if (!options.check_digests) return read_tensor(files_, *job.tensor, job.into, false, nullptr);
    // A tensor that is larger than a thread's share determines how long the load takes.
    const bool read_ahead =
        threads > 1 && job.bytes >= kReadAheadBytes && job.bytes > total / static_cast<std::uint64_t>(threads);
    const FileEntry* file = job.tensor ? nullptr : &manifest_->files[job.file];
    // A second read distinguishes a damaged medium from a transient error of the access.
    for (int attempt = 0; attempt < 2; ++attempt) {
      Digest digest;
      Status status = file ? read_header(*file, *files_[job.file], digest)
                           : read_tensor(files_, *job.tensor, job.into, read_ahead, &digest);
      if (!status) return status;
      if (digest == (file ? file->header_digest : job.tensor->digest)) return {};
    }
    const std::string place = file ? "the header (" + range_text(0, file->header_bytes) + " of " + file->name + ")"
                                   : place_of(*job.tensor, *manifest_);
    return {StatusCode::corrupt,
            "version " + manifest_->uid.short_text() + ": " + place + " does not match its digest"};
  });
  if (status.message() == "no memory")
    return {StatusCode::unreadable, "there is not enough memory to read the version"};
  return status;
}

std::vector<Finding> VersionReader::verify(const std::function<void(std::uint64_t, std::uint64_t)>& progress) const {
  std::vector<Finding> findings;
  std::uint64_t done = 0, total = manifest_->payload_bytes();
  for (const TensorEntry& tensor : manifest_->tensors) total += is_whole(tensor) ? 0 : tensor.bytes();
  const auto advance = [&](std::uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, total);
  };

  std::uint64_t largest = 0;
  for (const FileEntry& file : manifest_->files) largest = std::max(largest, file.bytes);
  std::vector<std::byte> buffer(std::min(kReadPieceBytes, largest));
  for (std::size_t file = 0; file < files_.size(); ++file) {
    FileVerifier(*manifest_, file, *files_[file], findings).run(buffer, advance);
  }
  for (const TensorEntry& tensor : manifest_->tensors) {
    if (is_whole(tensor)) continue;
    const TensorPart& first = tensor.parts.front();
    const auto add = [&](StatusCode code, const std::string& what) {
      findings.push_back({code, manifest_->files[first.file].name, tensor.name, first.begin, first.end, what});
    };
    const std::unique_ptr<std::byte[]> bytes(new (std::nothrow) std::byte[tensor.bytes()]);
    if (!bytes) {
      add(StatusCode::unreadable, "there is not enough memory to assemble the tensor from its parts");
      continue;
    }
    Digest digest;
    const Status status = read_tensor(files_, tensor, {bytes.get(), tensor.bytes()}, false, &digest);
    if (!status) {
      add(status.code(), status.message());
    } else if (digest != tensor.digest) {
      add(StatusCode::corrupt, "the tensor does not match its digest when it is assembled from its " +
                                   std::to_string(tensor.parts.size()) + " parts");
    }
    advance(tensor.bytes());
  }
  return findings;
}

}  // namespace holdfast::storage
