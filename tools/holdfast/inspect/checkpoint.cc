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

namespace {

bool is_number(std::string_view text) {
  return !text.empty() && text[0] >= '0' && text[0] <= '9' &&
         text.find_first_not_of("0123456789abcdef-") == std::string_view::npos;
}

Result<Target> version_of(std::shared_ptr<const RunFolder> run, const std::string& number) {
  const auto found = find_version(run->history, number);
  if (!found && found.code() == StatusCode::not_found) {
    for (const storage::Note& note : run->history.notes()) {
      if (note.kind != storage::NoteKind::drop) continue;
      for (const Uid& uid : note.about) {
        if (std::to_string(uid.seq) == number || uid.short_text() == number || uid.text() == number) {
          return Status(StatusCode::not_found, "version " + number + " of run " + run->name + " was removed (" +
                                                   note.reason + "); holdfast ls " + run->path.string() +
                                                   " lists those that are there");
        }
      }
    }
    return Status(StatusCode::not_found, "run " + run->name + ": " + found.status().message());
  }
  if (!found) return found.status();
  return Target{std::move(run), found->uid, {}, {}};
}

/// The newest version, or the newest that loads, in the order in which a session would try them.
Result<Target> latest_of(std::shared_ptr<const RunFolder> run, bool loadable) {
  std::map<Uid, Status> failed;
  while (true) {
    auto choice = choose(*run, failed);
    if (!choice) return Status(choice.code(), "run " + run->name + ": " + choice.status().message());
    if (!choice->version) {
      return Status(StatusCode::not_found,
                    "run " + run->name + " has no version yet: no session saved one in " + run->path.string());
    }
    const Uid uid = choice->version->uid;
    if (!loadable) return Target{std::move(run), uid, {}, {}};
    const auto checkpoint = open_version_head(*run, uid);
    Status status = checkpoint ? checkpoint->damage : checkpoint.status();
    if (status.ok()) return Target{std::move(run), uid, {}, choice->passed_over};
    if (status.code() == StatusCode::permission_denied || status.code() == StatusCode::unreadable) return status;
    failed.emplace(uid, std::move(status));
  }
}

Result<Target> target_in(const Path& path, const std::string& number, bool loadable) {
  auto run = open_run(path);
  if (!run) return run.status();
  return number.empty() ? latest_of(*std::move(run), loadable) : version_of(*std::move(run), number);
}

/// A regular file: a manifest of a run, or a file that must be safetensors.
Result<Target> target_of_file(const Path& path) {
  const auto entry = storage::parse_entry_name("journal/" + path.filename().string());
  if (!entry) return Target{nullptr, {}, path, {}};
  if (entry->kind != EntryKind::save) {
    return Status(StatusCode::invalid, path.string() + " is a journal entry, but no version's manifest (.save.json)");
  }
  const Path absolute = absolute_of(path);
  if (absolute.parent_path().filename() != "journal") {
    return Status(StatusCode::invalid, path.string() +
                                           " is a manifest outside of its run's folder \"journal\", so its "
                                           "files cannot be found; name it there");
  }
  return target_in(absolute.parent_path().parent_path(), entry->uid.text(), false);
}

/// Where element `at` of a tensor lies in a box, and how many elements from there on are contiguous in both.
struct Stretch {
  std::uint64_t element_in_part = 0;
  std::uint64_t elements = 0;
};

std::optional<Stretch> stretch_in(const TensorEntry& tensor, const TensorPart& part, std::uint64_t at) {
  const std::size_t dims = tensor.shape.size();
  Stretch stretch;
  std::uint64_t rest = at, stride = 1, in_part_stride = 1;
  bool whole = true;  // all dimensions after this one lie in the box from end to end
  for (std::size_t d = dims; d-- > 0;) {
    const auto extent = static_cast<std::uint64_t>(tensor.shape[d]);
    const auto begin = static_cast<std::uint64_t>(part.offset[d]);
    const auto length = static_cast<std::uint64_t>(part.extent[d]);
    const std::uint64_t index = rest % extent;
    rest /= extent;
    if (index < begin || index >= begin + length) return std::nullopt;
    stretch.element_in_part += (index - begin) * in_part_stride;
    if (whole) {
      const std::uint64_t inner = at % stride;  // within the row that this dimension counts
      stretch.elements = (begin + length - index) * stride - inner;
    }
    whole = whole && length == extent;
    stride *= extent;
    in_part_stride *= length;
  }
  return stretch;
}

}  // namespace

std::string title_of(const RunFolder& run, const Uid& uid) {
  return "version " + label_of(run, uid) + " of run " + printable(run.name);
}

Result<Target> find_target(const std::string& text, const std::string& number, bool loadable) {
  const Path path(text);
  const auto place = place_of(path);
  if (!place) return place.status();
  if (!number.empty()) {
    if (*place == Place::run) return target_in(path, number, loadable);
    if (*place == Place::file) {
      return Status(StatusCode::invalid, text + " is a file, so \"" + number + "\" after it names nothing");
    }
    return not_a_run(path);
  }
  if (*place == Place::run) return target_in(path, "", loadable);
  if (*place == Place::file) return target_of_file(path);

  const std::size_t split = text.find_last_of("@/");
  if (*place == Place::missing && split != std::string::npos && split > 0) {
    const std::string folder = text.substr(0, split);
    const std::string rest = text.substr(split + 1);
    const auto there = place_of(folder);
    if (there && *there == Place::run && (text[split] == '@' || is_number(rest))) {
      return target_in(folder, rest, loadable);
    }
    if (text[split] == '@' && !folder.empty()) return not_a_run(folder);
  }
  if (*place == Place::missing && is_number(text) && text.find_first_not_of("0123456789") == std::string::npos) {
    return Status(StatusCode::not_found,
                  "there is no file or folder " + text + "; name the run before the number, as in runs/mnist " + text);
  }
  return not_a_run(path);
}

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
  const std::uint64_t element = storage::element_size(tensor.dtype);
  while (!into.empty()) {
    const TensorPart* from = nullptr;
    std::uint64_t begin = 0, bytes = 0;
    for (const TensorPart& part : tensor.parts) {
      if (part.begin == part.end) continue;
      if (part.offset.empty()) {
        from = &part;
        begin = part.begin + offset;
        bytes = part.end - begin;
        break;
      }
      if (const auto stretch = stretch_in(tensor, part, offset / element)) {
        from = &part;
        begin = part.begin + stretch->element_in_part * element;
        bytes = stretch->elements * element;
        break;
      }
    }
    if (!from)
      return {StatusCode::corrupt,
              "no part of tensor " + in_quotes(tensor.name) + " holds its byte " + std::to_string(offset)};
    const auto& file = checkpoint.files[from->file];
    if (!file) return checkpoint.damage;
    const std::size_t piece = std::min<std::uint64_t>(bytes, into.size());
    if (Status status = file->read(begin, into.first(piece)); !status) return status;
    into = into.subspan(piece);
    offset += piece;
  }
  return {};
}

}  // namespace holdfast::tools
