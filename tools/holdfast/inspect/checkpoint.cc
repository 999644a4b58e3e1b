#include "inspect/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>

#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::EntryKind;
using storage::ManifestHead;
using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::TensorEntry;
using storage::TensorPart;
using storage::Uid;

std::vector<std::string> Checkpoint::tensor_names() const {
  std::vector<std::string> names;
  for (const TensorEntry& tensor : manifest.tensors) names.push_back(tensor.name);
  for (const auto& [alias, name] : manifest.tied) names.push_back(alias);
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

/// Like Store::get(), but into existing memory because allocating many megabytes each time costs more than the read.
Status get_into(const storage::Store& store, const std::string& name, std::string& bytes) {
  const auto reader = store.open(name);
  if (!reader) return reader.status();
  if ((*reader)->bytes() > storage::kMaxManifestBytes) return store.get(name).status();
  bytes.resize((*reader)->bytes());
  return (*reader)->read(0, std::as_writable_bytes(std::span(bytes)));
}

/// `decode` converts the entry's bytes to a ManifestHead.
template <class Decode>
Result<Checkpoint> open_decoded(const RunFolder& run, const Uid& uid, const Decode& decode) {
  static thread_local std::string bytes;  // a run's manifests have similar sizes
  if (Status status = get_into(*run.store, entry_name(uid, EntryKind::save), bytes); !status) return status;
  Result<ManifestHead> head = decode(bytes);
  if (!head) return head.status();
  if (head->manifest.uid != uid) {
    return Status(StatusCode::corrupt, "the manifest is that of another version, " + head->manifest.uid.text());
  }
  Checkpoint checkpoint;
  checkpoint.title = title_of(run, uid);
  checkpoint.path = run.path;
  checkpoint.is_version = true;
  checkpoint.manifest_digest = storage::digest_of(bytes);
  checkpoint.tensors = head->tensors;
  checkpoint.manifest = std::move(head->manifest);
  for (const storage::FileEntry& file : checkpoint.manifest.files) {
    auto object = run.store->open(file.name);
    Status status = object.status();
    if (!object && object.code() == StatusCode::not_found) {
      status = {StatusCode::incomplete, "its file " + file.name + " is missing"};
    } else if (object && (*object)->bytes() != file.bytes) {
      const std::uint64_t there = (*object)->bytes();
      status = {there < file.bytes ? StatusCode::incomplete : StatusCode::corrupt,
                fmt::format("its file {} has {} bytes instead of {}", file.name, there, file.bytes)};
    }
    if (checkpoint.damage.ok()) checkpoint.damage = std::move(status);
    checkpoint.files.push_back(object ? std::shared_ptr<storage::ObjectReader>(*std::move(object)) : nullptr);
  }
  return checkpoint;
}

}  // namespace

Result<Checkpoint> open_version(const RunFolder& run, const Uid& uid) {
  return open_decoded(run, uid, [](const std::string& bytes) -> Result<ManifestHead> {
    auto manifest = storage::decode_manifest(bytes);
    if (!manifest) return manifest.status();
    const std::size_t tensors = manifest->tensors.size();
    return ManifestHead{*std::move(manifest), tensors};
  });
}

Result<Checkpoint> open_version_head(const RunFolder& run, const Uid& uid) {
  return open_decoded(run, uid, [](const std::string& bytes) { return storage::decode_manifest_head(bytes); });
}

Result<Checkpoint> open_safetensors(const Path& file) {
  const Path folder = file.has_parent_path() ? file.parent_path() : Path(".");
  const auto store = storage::open_file_store(folder, {.read_only = true, .direct_io = false});
  auto object = store->open(file.filename().string());
  if (!object) return object.status();

  // The first bytes recognize files that users name by mistake. Such a file is never unpacked.
  char magic[4] = {};
  const std::uint64_t there = std::min<std::uint64_t>(sizeof magic, (*object)->bytes());
  if (Status status = (*object)->read(0, std::as_writable_bytes(std::span(magic, there))); !status) return status;
  const std::string_view begin(magic, there);
  if (begin == "PK\x03\x04" || begin.starts_with("\x80\x02")) {
    return Status(StatusCode::unsupported, file.string() +
                                               " looks like a torch.save file: it holds pickled code, which holdfast "
                                               "never runs; save it as safetensors from Python");
  }
  auto header = storage::read_safetensors_header(**object);
  if (!header) {
    const bool ours = file.extension() == ".safetensors";
    return Status(header.code(), file.string() + ": " + header.status().message() +
                                     (ours ? "" : "; holdfast reads runs and safetensors files"));
  }

  Checkpoint checkpoint;
  checkpoint.title = printable(file.string());
  checkpoint.path = file;
  checkpoint.metadata = std::move(header->metadata);
  storage::FileEntry entry;
  entry.name = file.filename().string();
  entry.bytes = (*object)->bytes();
  entry.header_bytes = header->data_begin;
  checkpoint.manifest.files.push_back(std::move(entry));
  for (storage::SafetensorsTensor& tensor : header->tensors) {
    TensorEntry named;
    named.name = std::move(tensor.name);
    named.dtype = tensor.dtype;
    named.shape = std::move(tensor.shape);
    storage::TensorPart whole;
    whole.begin = header->data_begin + tensor.begin;
    whole.end = header->data_begin + tensor.end;
    named.parts.push_back(std::move(whole));
    checkpoint.manifest.tensors.push_back(std::move(named));
  }
  std::sort(checkpoint.manifest.tensors.begin(), checkpoint.manifest.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
  checkpoint.tensors = checkpoint.manifest.tensors.size();
  checkpoint.files.push_back(std::shared_ptr<storage::ObjectReader>(*std::move(object)));
  return checkpoint;
}

Result<Checkpoint> open_checkpoint(const Target& target) {
  if (!target.run) return open_safetensors(target.file);
  auto checkpoint = open_version(*target.run, target.uid);
  if (checkpoint || checkpoint.code() != StatusCode::corrupt) return checkpoint;
  return Status(StatusCode::corrupt, title_of(*target.run, target.uid) +
                                         " cannot be read: " + checkpoint.status().message() + "; holdfast ls " +
                                         target.run->path.string() + " shows which versions can");
}

Status read_tensor(const Checkpoint& checkpoint, const TensorEntry& tensor, std::uint64_t offset,
                   std::span<std::byte> into) {
  for (const TensorPart& part : tensor.parts) {
    if (!checkpoint.files[part.file]) return checkpoint.damage;
  }
  return storage::read_tensor_range(checkpoint.files, tensor, offset, into);
}

}  // namespace holdfast::tools
