#include "holdfast/storage/formats/manifest.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/entry_text.h"
#include "formats/manifest_rules.h"
#include "formats/strict_json.h"
#include "formats/tensor_bytes.h"
#include "formats/tensor_lines.h"
#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/units.h"

namespace holdfast::storage {

using nlohmann::json;

namespace {

constexpr std::string_view kWhat = "the manifest";

/// The few largest values, largest first: "replay" (1.05 GiB), "log" (12 MiB).
std::string largest_values(const Manifest& manifest) {
  constexpr std::size_t kShown = 3;
  std::vector<std::pair<std::uint64_t, std::string>> sizes;
  if (manifest.values.is_object()) {
    for (const auto& [name, value] : manifest.values.items()) sizes.emplace_back(to_text(value).size(), name);
  }
  sizes.emplace_back(to_text(manifest.metrics).size(), "metrics");
  sizes.emplace_back(to_text(manifest.made_by).size(), "made_by");
  std::sort(sizes.rbegin(), sizes.rend());
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, sizes.size()); ++i) {
    text += (i > 0 ? ", " : "") + in_quotes(sizes[i].second) + " (" + format_bytes(sizes[i].first) + ")";
  }
  return text;
}

// --- encoding: keys in the order of the grammar in FORMAT.md

std::string file_text(const FileEntry& file) {
  const nlohmann::ordered_json object = {{"name", file.name},
                                         {"bytes", file.bytes},
                                         {"digest", file.digest.hex()},
                                         {"header_bytes", file.header_bytes},
                                         {"header_digest", file.header_digest.hex()}};
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// --- decoding

Result<FileEntry> decode_file(const json& object) {
  FieldReader fields(object, std::string(kWhat) + "'s file");
  FileEntry file;
  file.name = fields.text("name");
  file.bytes = fields.number("bytes");
  file.digest = fields.digest("digest");
  file.header_bytes = fields.number("header_bytes");
  file.header_digest = fields.digest("header_digest");
  if (!fields.ok()) return fields.status();
  return file;
}

Result<TensorPart> decode_part(const json& object, const std::string& what) {
  FieldReader fields(object, what);
  TensorPart part;
  part.file = fields.number("file");
  part.begin = fields.number("begin");
  part.end = fields.number("end");
  if (fields.has("offset") || fields.has("extent")) {
    part.offset = fields.extents("offset");
    part.extent = fields.extents("extent");
  }
  if (!fields.ok()) return fields.status();
  return part;
}

Result<TensorEntry> decode_tensor(const std::string& name, const json& object) {
  const std::string what = std::string(kWhat) + "'s tensor " + in_quotes(name);
  if (!object.is_object()) return Status(StatusCode::corrupt, what + " is not an object");
  FieldReader fields(object, what);
  TensorEntry tensor;
  tensor.name = name;
  const std::string dtype = fields.text("dtype");
  tensor.shape = fields.extents("shape");
  tensor.digest = fields.digest("digest");
  if (fields.has("non_finite")) tensor.non_finite = fields.number("non_finite");
  if (!fields.ok()) return fields.status();
  const auto known = parse_dtype(dtype);
  if (!known) {
    return Status(StatusCode::unsupported, what + " has the dtype " + in_quotes(dtype) +
                                               ", which this Holdfast does not know: use a newer Holdfast");
  }
  tensor.dtype = *known;
  const auto parts = object.find("parts");
  if (parts == object.end() || !parts->is_array()) fields.fail("has no list \"parts\"");
  if (!fields.ok()) return fields.status();
  for (const json& item : *parts) {
    if (!item.is_object()) return Status(StatusCode::corrupt, what + " has a part that is not an object");
    auto part = decode_part(item, what + "'s part");
    if (!part) return part.status();
    tensor.parts.push_back(*std::move(part));
  }
  return tensor;
}

Status decode_files(const json& entry, Manifest& manifest) {
  const auto files = entry.find("files");
  if (files == entry.end() || !files->is_array())
    return {StatusCode::corrupt, std::string(kWhat) + " has no list \"files\""};
  for (const json& item : *files) {
    if (!item.is_object()) return {StatusCode::corrupt, std::string(kWhat) + " lists a file that is not an object"};
    auto file = decode_file(item);
    if (!file) return file.status();
    manifest.files.push_back(*std::move(file));
  }
  return {};
}

Status decode_tensors(const json& entry, Manifest& manifest) {
  const auto tensors = entry.find("tensors");
  if (tensors == entry.end() || !tensors->is_object()) {
    return {StatusCode::corrupt, std::string(kWhat) + " has no object \"tensors\""};
  }
  manifest.tensors.reserve(tensors->size());
  for (const auto& [name, value] : tensors->items()) {
    auto tensor = decode_tensor(name, value);
    if (!tensor) return tensor.status();
    manifest.tensors.push_back(*std::move(tensor));
  }
  return {};
}

Status decode_tied(const json& entry, Manifest& manifest) {
  const auto tied = entry.find("tied");
  if (tied == entry.end() || !tied->is_object())
    return {StatusCode::corrupt, std::string(kWhat) + " has no object \"tied\""};
  for (const auto& [alias, target] : tied->items()) {
    if (!target.is_string()) {
      return {StatusCode::corrupt,
              std::string(kWhat) + " ties " + in_quotes(alias) + " to a tensor that is not stored"};
    }
    manifest.tied.emplace(alias, target.get<std::string>());
  }
  return {};
}

}  // namespace

std::uint64_t TensorEntry::bytes() const { return tensor_bytes(dtype, shape).value_or(0); }

const TensorEntry* Manifest::find(std::string_view tensor) const {
  if (!tied.empty()) {
    if (const auto alias = tied.find(std::string(tensor)); alias != tied.end()) tensor = alias->second;
  }
  const auto found =
      std::lower_bound(tensors.begin(), tensors.end(), tensor,
                       [](const TensorEntry& entry, std::string_view name) { return entry.name < name; });
  return found != tensors.end() && found->name == tensor ? &*found : nullptr;
}

std::uint64_t Manifest::payload_bytes() const {
  std::uint64_t sum = 0;
  for (const FileEntry& file : files) sum += file.bytes;
  return sum;
}

std::string encode(const Manifest& manifest) {
  EntryWriter writer("save");
  writer.field("uid", manifest.uid.text());
  writer.field("epoch", manifest.epoch);
  writer.field("parent", manifest.parent ? json(manifest.parent->text()) : json());
  writer.field("run", manifest.run);
  writer.field("time", manifest.time);
  writer.field("reason", manifest.reason);
  writer.field(
      "position",
      {{"step", manifest.position.step}, {"epoch", manifest.position.epoch}, {"samples", manifest.position.samples}});
  writer.field("world_size", manifest.world_size);
  writer.field("durability", manifest.durability);
  if (manifest.non_finite) writer.field("non_finite", *manifest.non_finite);
  writer.object("metrics", manifest.metrics);
  writer.object("values", manifest.values);
  writer.object("made_by", manifest.made_by);
  writer.object("cost", manifest.cost);
  writer.field("needs_features", manifest.needs_features);
  writer.begin_lines("files", '[');
  for (const FileEntry& file : manifest.files) writer.line(file_text(file));
  writer.end_lines(']');
  writer.begin_lines("tensors", '{');
  for (const TensorEntry& tensor : manifest.tensors) append_tensor(writer.begin_line(), tensor);
  writer.end_lines('}');
  writer.begin_lines("tied", '{');
  for (const auto& [alias, name] : manifest.tied) writer.line(to_text(alias) + ":" + to_text(name));
  writer.end_lines('}');
  return std::move(writer).finish();
}

Status check_values(const Manifest& manifest) {
  for (const auto& [key, section] :
       {std::pair("metrics", &manifest.metrics), std::pair("made_by", &manifest.made_by)}) {
    if (Status status = check_json(*section, 1, std::string("\"") + key + "\""); !status) return status;
  }
  // Each value separately, so that the error has the name that the user gave it.
  if (!manifest.values.is_object()) return check_json(manifest.values, 1, "\"values\"");
  for (const auto& [name, value] : manifest.values.items()) {
    if (Status status = check_json(value, 2, "the value " + in_quotes(name)); !status) return status;
  }
  return {};
}

Result<std::string> encode_checked(const Manifest& manifest, std::uint64_t limit) {
  if (Status status = check_values(manifest); !status) return status;
  if (Problem problem = check_structure(manifest)) {
    return Status(StatusCode::invalid, std::string(kWhat) + *problem + ", so the version could not be read back");
  }
  std::string text = encode(manifest);
  if (text.size() <= limit) return text;
  const std::uint64_t bytes = text.size();
  text = {};  // frees it, because it may fill most of the memory
  return Status(StatusCode::invalid, "the version's values have " + format_count(bytes) +
                                         " bytes as text, more than the " + format_count(limit) +
                                         " that can be read back; the largest are " + largest_values(manifest) +
                                         ": track large data as a tensor, which has no such limit");
}

namespace {

/// Moves the object out of `entry`, because it may be most of the entry.
json take_object(json& entry, const char* key, FieldReader& fields) {
  const auto found = entry.find(key);
  return found != entry.end() && found->is_object() ? std::move(*found) : fields.object(key);
}

/// Decodes everything except files, tensors and `tied`.
Status decode_head(json& entry, Manifest& manifest) {
  FieldReader fields(entry, std::string(kWhat));
  manifest.uid = fields.uid("uid");
  manifest.epoch = fields.number("epoch");
  manifest.parent = fields.uid_or_null("parent");
  manifest.run = fields.text("run");
  manifest.time = fields.text("time");
  manifest.reason = fields.text("reason");
  const json position = fields.object("position");
  const std::int64_t world_size = fields.integer("world_size");
  manifest.durability = fields.text("durability");
  if (fields.has("non_finite")) manifest.non_finite = fields.number("non_finite");
  manifest.metrics = fields.object("metrics");
  manifest.values = take_object(entry, "values", fields);
  manifest.made_by = fields.object("made_by");
  manifest.cost = fields.object("cost");
  if (world_size < 1 || world_size > std::numeric_limits<int>::max()) fields.fail("has an impossible \"world_size\"");
  if (!fields.ok()) return fields.status();
  manifest.world_size = static_cast<int>(world_size);

  FieldReader position_fields(position, std::string(kWhat) + "'s position");
  manifest.position.step = position_fields.number("step");
  manifest.position.epoch = position_fields.number("epoch");
  manifest.position.samples = position_fields.number("samples");
  return position_fields.status();
}

}  // namespace

Result<Manifest> decode_manifest(std::string_view bytes) {
  if (Status status = check_digest(bytes, "save"); !status) return status;
  auto without = take_tensors(bytes);
  auto entry = read_fields(without ? std::string_view(without->rest) : bytes, "save");
  if (!entry) return entry.status();
  Manifest manifest;
  if (Status status = decode_head(*entry, manifest); !status) return status;
  if (Status status = decode_files(*entry, manifest); !status) return status;
  if (without) {
    manifest.tensors = std::move(without->tensors);
  } else if (Status status = decode_tensors(*entry, manifest); !status) {
    return status;
  }
  if (Status status = decode_tied(*entry, manifest); !status) return status;
  if (Problem problem = check_structure(manifest)) return Status(StatusCode::corrupt, std::string(kWhat) + *problem);
  return manifest;
}

Result<ManifestHead> decode_manifest_head(std::string_view bytes) {
  if (Status status = check_digest(bytes, "save"); !status) return status;
  if (const auto outline = take_outline(bytes)) {
    ManifestHead head;
    head.tensors = outline->tensors;
    auto entry = read_fields(outline->rest, "save");
    if (entry && decode_head(*entry, head.manifest) && decode_files(*entry, head.manifest) &&
        !check_files(head.manifest)) {
      head.manifest.values = nullptr;
      return head;
    }
  }
  // The text has another writer's layout or an error; decode_manifest() reads the one and reports the other.
  auto manifest = decode_manifest(bytes);
  if (!manifest) return manifest.status();
  const std::size_t tensors = manifest->tensors.size();
  manifest->tensors.clear();
  manifest->tied.clear();
  manifest->values = nullptr;
  return ManifestHead{*std::move(manifest), tensors};
}

}  // namespace holdfast::storage
