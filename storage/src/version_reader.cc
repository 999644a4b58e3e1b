#include "holdfast/storage/version_reader.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "holdfast/storage/safetensors.h"
#include "tensor_bytes.h"

namespace holdfast::storage {
namespace {

// Read, then hashed while the processor's cache still holds it.
constexpr std::uint64_t kPieceBytes = 1 << 20;
// A tensor from this size on may get a second thread: one reads ahead while the other hashes.
constexpr std::uint64_t kReadAheadBytes = 32 << 20;
constexpr int kMaxThreads = 8;

std::string in_quotes(const std::string& text) { return "\"" + text + "\""; }

std::string range_text(std::uint64_t begin, std::uint64_t end) {
  return "bytes " + std::to_string(begin) + " to " + std::to_string(end);
}

bool is_whole(const TensorEntry& tensor) { return tensor.parts.size() == 1 && tensor.parts[0].offset.empty(); }

/// Where a tensor lies, for messages: "tensor "w" (bytes 4096 to 8192 of data/…)".
std::string place_of(const TensorEntry& tensor, const Manifest& manifest) {
  std::string text = "tensor " + in_quotes(tensor.name) + " (";
  for (std::size_t i = 0; i < tensor.parts.size(); ++i) {
    const TensorPart& part = tensor.parts[i];
    if (i > 0) text += ", ";
    text += range_text(part.begin, part.end) + " of " + manifest.files[part.file].name;
  }
  return text + ")";
}

using Files = std::vector<std::shared_ptr<ObjectReader>>;

/// Calls `run(tensor_offset, bytes)` for each stretch of a box that is contiguous in the tensor, in the box's order.
template <class Run>
Status for_each_run(const TensorEntry& tensor, const TensorPart& part, const Run& run) {
  const std::size_t dims = tensor.shape.size();
  const std::uint64_t element = element_size(tensor.dtype);
  // Dimensions from `inner` on are taken whole, and so is the stretch of the one before them.
  std::size_t inner = dims;
  while (inner > 0 && part.extent[inner - 1] == tensor.shape[inner - 1]) --inner;
  const std::size_t outer = inner > 0 ? inner - 1 : 0;
  std::vector<std::uint64_t> stride(dims, element);
  for (std::size_t i = dims; i-- > 1;) stride[i - 1] = stride[i] * static_cast<std::uint64_t>(tensor.shape[i]);
  const std::uint64_t bytes = static_cast<std::uint64_t>(part.extent[outer]) * stride[outer];

  std::vector<std::int64_t> index(outer, 0);
  while (true) {
    std::uint64_t at = static_cast<std::uint64_t>(part.offset[outer]) * stride[outer];
    for (std::size_t i = 0; i < outer; ++i) at += static_cast<std::uint64_t>(part.offset[i] + index[i]) * stride[i];
    if (Status status = run(at, bytes); !status) return status;
    std::size_t i = outer;
    while (i > 0 && ++index[i - 1] == part.extent[i - 1]) index[--i] = 0;
    if (i == 0) return {};
  }
}

/// Gathers a tensor that lies in boxes. Rows of a box are read through a buffer, since a row may be a few bytes.
Status gather(const Files& files, const TensorEntry& tensor, std::span<std::byte> into) {
  std::vector<std::byte> buffer;
  for (const TensorPart& part : tensor.parts) {
    if (part.begin == part.end) continue;
    const ObjectReader& file = *files[part.file];
    if (part.offset.empty()) {
      if (Status status = file.read(part.begin, into); !status) return status;
      continue;
    }
    std::uint64_t next = part.begin;  // of the file
    std::size_t used = 0;             // of the buffer
    buffer.clear();
    const auto run = [&](std::uint64_t at, std::uint64_t bytes) -> Status {
      while (bytes > 0) {
        if (used == buffer.size()) {
          buffer.resize(std::min(kPieceBytes, part.end - next));
          used = 0;
          if (Status status = file.read(next, buffer); !status) return status;
          next += buffer.size();
        }
        const std::size_t piece = std::min<std::uint64_t>(bytes, buffer.size() - used);
        std::memcpy(into.data() + at, buffer.data() + used, piece);
        used += piece;
        at += piece;
        bytes -= piece;
      }
      return {};
    };
    if (Status status = for_each_run(tensor, part, run); !status) return status;
  }
  return {};
}

/// Not joinable where the system grants no more threads: the caller then does the work itself.
template <class Work>
std::thread start_thread(const Work& work) {
  try {
    return std::thread(work);
  } catch (const std::system_error&) {
    return {};
  }
}

/// Reads a contiguous range piece by piece and calls `each` on every piece that has arrived, in order. With
/// `read_ahead`, another thread reads while `each` runs.
template <class Each>
Status read_range(const ObjectReader& file, std::uint64_t begin, std::span<std::byte> into, bool read_ahead,
                  const Each& each) {
  const auto piece_at = [&](std::uint64_t done) {
    return into.subspan(done, std::min<std::uint64_t>(kPieceBytes, into.size() - done));
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t arrived = 0;
  Status status;  // not ok: nothing more will arrive
  std::thread reader;
  if (read_ahead) {
    reader = start_thread([&] {
      for (std::uint64_t done = 0; done < into.size();) {
        const std::span<std::byte> piece = piece_at(done);
        Status read = file.read(begin + done, piece);
        done += piece.size();
        const std::lock_guard lock(mutex);
        if (read) {
          arrived = done;
        } else {
          status = std::move(read);
        }
        changed.notify_one();
        if (!status) return;
      }
    });
  }
  for (std::uint64_t done = 0; done < into.size();) {
    const std::span<std::byte> piece = piece_at(done);
    if (reader.joinable()) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return arrived > done || !status; });
    } else {
      status = file.read(begin + done, piece);
    }
    if (!status) break;
    each(piece);
    done += piece.size();
  }
  if (reader.joinable()) reader.join();
  return status;
}

/// Reads one tensor and, with `digest`, computes its digest on the way.
Status read_tensor(const Files& files, const TensorEntry& tensor, std::span<std::byte> into, bool read_ahead,
                   Digest* digest) {
  if (!is_whole(tensor)) {
    if (Status status = gather(files, tensor, into); !status) return status;
    if (digest) *digest = digest_of(std::span<const std::byte>(into));
    return {};
  }
  const TensorPart& part = tensor.parts[0];
  const ObjectReader& file = *files[part.file];
  if (!digest) return file.read(part.begin, into);
  if (into.size() <= kPieceBytes) {
    if (Status status = file.read(part.begin, into); !status) return status;
    *digest = digest_of(std::span<const std::byte>(into));
    return {};
  }
  DigestStream stream;
  Status status =
      read_range(file, part.begin, into, read_ahead, [&](std::span<const std::byte> piece) { stream.update(piece); });
  if (status) *digest = stream.finish();
  return status;
}

/// Reads `count` things on several threads, the first ones first; after a failure no new one begins. Of several
/// failures the one with the lowest number is returned.
template <class Job>
Status in_parallel(std::size_t count, int threads, const Job& job) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t failed_at = count;
  Status failure;
  const auto work = [&] {
    for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      Status status = job(i);
      if (status) continue;
      next.store(count);
      const std::lock_guard lock(mutex);
      if (i < failed_at) {
        failed_at = i;
        failure = std::move(status);
      }
    }
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < std::min(count, static_cast<std::size_t>(threads)); ++i) {
    others.push_back(start_thread(work));
    if (!others.back().joinable()) break;
  }
  work();
  for (std::thread& other : others) {
    if (other.joinable()) other.join();
  }
  return failure;
}

int thread_count(const ReadOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

/// One pass over one file: the digests of the file, of its header and of each tensor that lies in it whole.
class FileVerifier {
  using Placed = std::pair<const TensorPart*, const TensorEntry*>;

 public:
  FileVerifier(const Manifest& manifest, std::size_t file, const ObjectReader& object, std::vector<Finding>& findings)
      : entry_(manifest.files[file]), object_(object), findings_(findings) {
    const auto name = parse_payload_name(entry_.name);
    own_ = name && name->uid == manifest.uid;
    for (const TensorEntry& tensor : manifest.tensors) {
      for (const TensorPart& part : tensor.parts) {
        if (part.file == file) placed_.emplace_back(&part, &tensor);
      }
    }
    std::sort(placed_.begin(), placed_.end(), [](const Placed& a, const Placed& b) {
      return std::make_pair(a.first->begin, a.first->end) < std::make_pair(b.first->begin, b.first->end);
    });
  }

  /// `done(bytes)` after every piece.
  template <class Done>
  void run(std::span<std::byte> buffer, const Done& done) {
    const std::size_t findings_before = findings_.size();
    const std::optional<Digest> header = range(0, entry_.header_bytes, buffer, done);
    if (!header) return;
    if (*header != entry_.header_digest)
      add(StatusCode::corrupt, "", 0, entry_.header_bytes, "the header does not match its digest");
    std::uint64_t reached = entry_.header_bytes;
    for (const auto& [part, tensor] : placed_) {
      if (!range(reached, part->begin, buffer, done)) return;
      const std::optional<Digest> digest = range(part->begin, part->end, buffer, done);
      if (!digest) return;
      if (is_whole(*tensor) && *digest != tensor->digest) {
        add(StatusCode::corrupt, tensor->name, part->begin, part->end, "the tensor does not match its digest");
      }
      reached = part->end;
    }
    if (!range(reached, entry_.bytes, buffer, done)) return;
    if (findings_.size() == findings_before && whole_.finish() != entry_.digest) {
      add(StatusCode::corrupt, "", 0, entry_.bytes,
          "the file does not match its digest, although all that lies in it does");
    }
    check_header();
  }

 private:
  void add(StatusCode code, const std::string& tensor, std::uint64_t begin, std::uint64_t end,
           const std::string& what) {
    findings_.push_back({code, entry_.name, tensor, begin, end, what});
  }

  /// The digest of a range, after feeding it to the file's. Empty after a failed read, which is a finding.
  template <class Done>
  std::optional<Digest> range(std::uint64_t begin, std::uint64_t end, std::span<std::byte> buffer, const Done& done) {
    DigestStream digest;
    while (begin < end) {
      const std::span<std::byte> piece = buffer.first(std::min<std::uint64_t>(buffer.size(), end - begin));
      if (Status status = object_.read(begin, piece); !status) {
        add(status.code(), "", begin, begin + piece.size(), status.message());
        return std::nullopt;
      }
      digest.update(piece);
      whole_.update(piece);
      begin += piece.size();
      done(piece.size());
    }
    return digest.finish();
  }

  /// What Python would see in the file is what the manifest says of it.
  void check_header() {
    const auto header = read_safetensors_header(object_);
    if (!header) return add(header.code(), "", 0, entry_.header_bytes, header.status().message());
    if (header->data_begin != entry_.header_bytes) {
      return add(StatusCode::corrupt, "", 0, header->data_begin,
                 "the header has another length than the manifest says");
    }
    if (own_ && header->tensors.size() != placed_.size()) {
      add(StatusCode::corrupt, "", 0, entry_.header_bytes, "the header lists other tensors than the manifest");
    }
    std::map<std::string_view, const SafetensorsTensor*> in_header;
    for (const SafetensorsTensor& tensor : header->tensors) in_header.emplace(tensor.name, &tensor);
    for (const auto& [part, tensor] : placed_) {
      const auto found = in_header.find(tensor->name);
      const bool same = found != in_header.end() && found->second->dtype == tensor->dtype &&
                        found->second->shape == (part->offset.empty() ? tensor->shape : part->extent) &&
                        header->data_begin + found->second->begin == part->begin &&
                        header->data_begin + found->second->end == part->end;
      if (!same) {
        add(StatusCode::corrupt, tensor->name, part->begin, part->end,
            "the header describes the tensor otherwise than the manifest");
      }
    }
  }

  const FileEntry& entry_;
  const ObjectReader& object_;
  std::vector<Finding>& findings_;
  std::vector<Placed> placed_;  // what lies in this file, by place
  bool own_ = false;  // written by this version; a file of an older one may hold tensors that this one does not use
  DigestStream whole_;
};

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

  VersionReader reader;
  reader.store_ = &store;
  for (const FileEntry& file : manifest->files) {
    auto object = store.open(file.name);
    if (!object && object.code() == StatusCode::not_found) {
      return Status(StatusCode::incomplete, "version " + uid.short_text() + " lacks its file " + file.name);
    }
    if (!object) return object.status();
    const std::uint64_t there = (*object)->bytes();
    if (there != file.bytes) {
      return Status(there < file.bytes ? StatusCode::incomplete : StatusCode::corrupt,
                    file.name + " has " + std::to_string(there) + " bytes instead of " + std::to_string(file.bytes));
    }
    reader.files_.push_back(*std::move(object));
  }
  reader.manifest_ = std::make_shared<const Manifest>(*std::move(manifest));
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
    // A file's header is checked with the file's first tensor; of a file without tensors, always.
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
  // The largest first, so that no thread is left alone with a large one at the end.
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.bytes > b.bytes; });

  const int threads = thread_count(options);
  const auto read_header = [&](const FileEntry& entry, const ObjectReader& file, Digest& digest) -> Status {
    std::vector<std::byte> header(entry.header_bytes);
    if (Status status = file.read(0, header); !status) return status;
    digest = digest_of(std::span<const std::byte>(header));
    return {};
  };
  return in_parallel(jobs.size(), threads, [&](std::size_t i) -> Status {
    const Job& job = jobs[i];
    if (!options.check_digests) return read_tensor(files_, *job.tensor, job.into, false, nullptr);
    // One tensor that is more than a thread's share decides how long the load takes.
    const bool read_ahead =
        threads > 1 && job.bytes >= kReadAheadBytes && job.bytes > total / static_cast<std::uint64_t>(threads);
    const FileEntry* file = job.tensor ? nullptr : &manifest_->files[job.file];
    // A second reading tells a flaw of the medium from one of the way to it.
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
  std::vector<std::byte> buffer(std::min(kPieceBytes, largest));
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
      add(StatusCode::unreadable, "there is not enough memory to put the tensor together from its parts");
      continue;
    }
    Digest digest;
    const Status status = read_tensor(files_, tensor, {bytes.get(), tensor.bytes()}, false, &digest);
    if (!status) {
      add(status.code(), status.message());
    } else if (digest != tensor.digest) {
      add(StatusCode::corrupt, "the tensor does not match its digest, put together from its " +
                                   std::to_string(tensor.parts.size()) + " parts");
    }
    advance(tensor.bytes());
  }
  return findings;
}

}  // namespace holdfast::storage
