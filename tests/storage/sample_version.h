// Versions for tests of the formats: tensors with known bytes, written by write_payload and published like a commit.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/run/payload.h"
#include "holdfast/storage/stores/store.h"

namespace sample_version {

using namespace holdfast::storage;

/// A tensor and all its bytes.
struct Tensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::string bytes;

  TensorSource source() const {
    return {name, dtype, shape, [this](std::uint64_t offset, std::span<std::byte> into) {
              if (!into.empty()) std::memcpy(into.data(), bytes.data() + offset, into.size());
            }};
  }
};

/// Bytes that differ everywhere and between salts.
inline std::string pattern(std::size_t bytes, unsigned salt) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(((i + salt * 977) * 2654435761U) >> 13);
  return text;
}

inline Tensor tensor(std::string name, Dtype dtype, std::vector<std::int64_t> shape) {
  std::size_t bytes = element_size(dtype);
  unsigned salt = 0;
  for (std::int64_t extent : shape) bytes *= static_cast<std::size_t>(extent);
  for (char c : name) salt = salt * 31 + static_cast<unsigned char>(c);
  return {std::move(name), dtype, std::move(shape), pattern(bytes, salt)};
}

/// One tensor of each dtype, and edge cases: a scalar, an empty one, unusual names.
inline std::vector<Tensor> all_sorts() {
  std::vector<Tensor> tensors;
  for (Dtype dtype : all_dtypes()) tensors.push_back(tensor("dtype." + std::string(to_string(dtype)), dtype, {3, 5}));
  tensors.push_back(tensor("scalar", Dtype::f64, {}));
  tensors.push_back(tensor("empty", Dtype::f32, {0, 7}));
  tensors.push_back(tensor("also empty", Dtype::i64, {0}));
  tensors.push_back(tensor("quote\" and \\ and \n and \xc3\xa9", Dtype::u8, {11}));
  tensors.push_back(tensor("", Dtype::i16, {2}));
  return tensors;
}

inline std::vector<TensorSource> sources_of(const std::vector<Tensor>& tensors) {
  std::vector<TensorSource> sources;
  for (const Tensor& tensor : tensors) sources.push_back(tensor.source());
  return sources;
}

inline Uid uid_of(std::uint64_t seq) { return {seq, "7f3a9c1e"}; }

/// A manifest with every field set, without files and tensors.
inline Manifest manifest_of(const Uid& uid) {
  Manifest manifest;
  manifest.uid = uid;
  manifest.epoch = 3;
  manifest.parent = Uid{41, "51d0aa02"};
  manifest.run = "mnist";
  manifest.time = "2026-01-31T12:00:00Z";
  manifest.reason = "every 500 steps";
  manifest.position = {1000, 2, 64000};
  manifest.durability = "fsynced";
  manifest.metrics = {{"loss", 0.25}};
  manifest.values = {{"lr", 0.001}};
  manifest.made_by = {{"holdfast", "0.1.0"}};
  manifest.cost = {{"seconds", 0.5}, {"bytes", 4096}};
  return manifest;
}

/// Writes payload and manifest of one version with world size 1.
inline Result<Manifest> publish(Store& store, const Uid& uid, const std::vector<Tensor>& tensors) {
  auto table = write_payload(store, payload_name({uid, 0, 1}), {{"format", "pt"}}, sources_of(tensors));
  if (!table) return table.status();
  Manifest manifest = manifest_of(uid);
  manifest.files = {table->file};
  manifest.tensors = table->tensors;
  auto staged = store.stage(entry_name(uid, EntryKind::save), encode(manifest));
  if (!staged) return staged.status();
  if (Status status = (*staged)->publish(); !status) return status;
  return manifest;
}

/// Buffers for all tensors of a manifest.
struct Room {
  explicit Room(const Manifest& manifest) {
    bytes.reserve(manifest.tensors.size());
    for (const TensorEntry& tensor : manifest.tensors) {
      bytes.emplace_back(tensor.bytes(), '\xee');
      targets.push_back({tensor.name, std::as_writable_bytes(std::span(bytes.back()))});
    }
  }
  const std::string& of(const std::string& name) const {
    const auto found =
        std::find_if(targets.begin(), targets.end(), [&](const TensorTarget& t) { return t.name == name; });
    return bytes.at(static_cast<std::size_t>(found - targets.begin()));
  }
  std::vector<std::string> bytes;
  std::vector<TensorTarget> targets;
};

}  // namespace sample_version
