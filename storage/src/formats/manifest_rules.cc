#include "formats/manifest_rules.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "formats/tensor_bytes.h"
#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

// Limited because the boxes of one tensor are compared pair by pair.
constexpr std::size_t kMaxPartsOfATensor = 4096;

// Limits the memory that a reader allocates for a header, whatever the manifest says.
constexpr std::uint64_t kMaxPayloadHeader = 8 + kMaxSafetensorsHeader;

/// A part lies in its file after the header, and its length matches its box.
Problem check_part(const TensorEntry& tensor, const TensorPart& part, const std::vector<FileEntry>& files) {
  if (part.file >= files.size()) return "has a part in file " + std::to_string(part.file) + ", which is not listed";
  const FileEntry& file = files[part.file];
  if (part.begin < file.header_bytes || part.end < part.begin || part.end > file.bytes) {
    return "has a part at bytes " + std::to_string(part.begin) + " to " + std::to_string(part.end) +
           ", outside the data of " + in_quotes(file.name);
  }
  const std::vector<std::int64_t>& shape = tensor.shape;
  if (!part.offset.empty() || !part.extent.empty()) {
    if (part.offset.size() != shape.size() || part.extent.size() != shape.size()) {
      return "has a box with a number of dimensions that is not the tensor's";
    }
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (part.extent[i] > shape[i] || part.offset[i] > shape[i] - part.extent[i]) return "has a box outside its shape";
    }
  }
  const auto bytes = tensor_bytes(tensor.dtype, part.offset.empty() ? shape : part.extent);
  if (!bytes || *bytes != part.end - part.begin) return "has a part whose length is not that of its box";
  return std::nullopt;
}

bool boxes_meet(const TensorPart& a, const TensorPart& b) {
  for (std::size_t i = 0; i < a.offset.size(); ++i) {
    if (a.offset[i] + a.extent[i] <= b.offset[i] || b.offset[i] + b.extent[i] <= a.offset[i]) return false;
  }
  return true;
}

/// The parts cover the whole tensor, each element once.
Problem check_tensor(const TensorEntry& tensor, const std::vector<FileEntry>& files) {
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) return "has a shape whose size does not fit 64 bits";
  if (tensor.parts.empty()) return "has no part";
  if (tensor.parts.size() > kMaxPartsOfATensor) return "has more than " + std::to_string(kMaxPartsOfATensor) + " parts";
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < tensor.parts.size(); ++i) {
    const TensorPart& part = tensor.parts[i];
    if (Problem problem = check_part(tensor, part, files)) return problem;
    if (__builtin_add_overflow(sum, part.end - part.begin, &sum)) return "has parts that are larger than the tensor";
    if (part.begin == part.end) continue;
    for (std::size_t k = 0; k < i; ++k) {
      const TensorPart& other = tensor.parts[k];
      if (other.begin < other.end && (part.offset.empty() || other.offset.empty() || boxes_meet(part, other))) {
        return "has parts that overlap";
      }
    }
  }
  if (sum != *bytes) return "has parts that do not add up to its shape";
  return std::nullopt;
}

/// Every tensor is complete and listed once.
Problem check_tensors(const Manifest& manifest) {
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    const TensorEntry& tensor = manifest.tensors[i];
    const auto about = [&](const std::string& problem) {
      return "'s tensor " + in_quotes(tensor.name) + " " + problem;
    };
    if (!is_utf8(tensor.name)) return about("has a name that is not UTF-8");
    if (i > 0 && manifest.tensors[i - 1].name >= tensor.name) return about("is listed twice or out of order");
    if (Problem problem = check_tensor(tensor, manifest.files)) return about(*problem);
  }
  return std::nullopt;
}

/// An alias refers to a stored tensor and is not stored itself.
Problem check_tied(const Manifest& manifest) {
  const auto stored = [&](const std::string& name) {
    const auto found =
        std::lower_bound(manifest.tensors.begin(), manifest.tensors.end(), name,
                         [](const TensorEntry& entry, const std::string& wanted) { return entry.name < wanted; });
    return found != manifest.tensors.end() && found->name == name;
  };
  for (const auto& [alias, name] : manifest.tied) {
    const std::string what = " ties " + in_quotes(alias);
    if (!is_utf8(alias)) return what + ", which is not UTF-8";
    if (stored(alias)) return what + ", which is stored itself";
    if (!stored(name)) return what + " to a tensor that is not stored";
  }
  return std::nullopt;
}

/// No byte of a file belongs to two tensors; in a file that this version wrote, each byte after the header to one.
Problem check_layout(const Manifest& manifest) {
  std::vector<std::vector<std::pair<std::uint64_t, std::uint64_t>>> ranges(manifest.files.size());
  for (const TensorEntry& tensor : manifest.tensors) {
    for (const TensorPart& part : tensor.parts) ranges[part.file].emplace_back(part.begin, part.end);
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const FileEntry& file = manifest.files[i];
    const auto name = parse_payload_name(file.name);
    const bool own = name && name->uid == manifest.uid;
    if (own && name->world_size != manifest.world_size) {
      return " lists " + in_quotes(file.name) + ", which is not of a world of " + std::to_string(manifest.world_size);
    }
    std::sort(ranges[i].begin(), ranges[i].end());
    std::uint64_t reached = file.header_bytes;
    for (const auto& [begin, end] : ranges[i]) {
      if (begin < reached) return " gives bytes of " + in_quotes(file.name) + " to two tensors";
      if (own && begin > reached) return " leaves bytes of " + in_quotes(file.name) + " to no tensor";
      reached = end;
    }
    if (own && reached != file.bytes) return " leaves bytes of " + in_quotes(file.name) + " to no tensor";
  }
  return std::nullopt;
}

}  // namespace

Problem check_files(const Manifest& manifest) {
  std::set<std::string_view> names;
  for (const FileEntry& file : manifest.files) {
    // Only names that this library builds, because none of them leads out of the run's folder.
    if (!parse_payload_name(file.name)) {
      return "'s file has the name " + in_quotes(file.name) + ", which is not the name of a payload";
    }
    if (file.header_bytes > file.bytes) {
      return "'s file " + in_quotes(file.name) + " has a header that is longer than the file";
    }
    if (file.header_bytes > kMaxPayloadHeader) {
      return "'s file " + in_quotes(file.name) + " has a header of " + std::to_string(file.header_bytes) +
             " bytes, more than the " + std::to_string(kMaxPayloadHeader) + " that a payload may have";
    }
    if (!names.insert(file.name).second) return " lists the file " + in_quotes(file.name) + " twice";
  }
  return std::nullopt;
}

Problem check_structure(const Manifest& manifest) {
  for (const auto check : {check_files, check_tensors, check_tied, check_layout}) {
    if (Problem problem = check(manifest)) return problem;
  }
  return std::nullopt;
}

}  // namespace holdfast::storage
