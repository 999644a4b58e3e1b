// Runs and safetensors files for the command to inspect, made by the storage library.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "command.h"
#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "storage/run_fixture.h"

using boost::filesystem::path;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

struct Named {
  std::string name;
  holdfast::storage::Dtype dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

/// A plain safetensors file.
inline void write_safetensors(const path& file, const std::vector<Named>& tensors) {
  holdfast::storage::SafetensorsHeader header;
  for (const Named& tensor : tensors) header.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, 0});
  const auto text = holdfast::storage::encode_safetensors_header(header);
  REQUIRE(text.ok());
  std::string all = *text;
  for (const auto& placed : header.tensors) {
    for (const Named& tensor : tensors) {
      if (tensor.name == placed.name) all += tensor.bytes;
    }
  }
  write_file(file, all);
}

inline holdfast::storage::TensorSource source_of(const Named& tensor) {
  return {tensor.name, tensor.dtype, tensor.shape,
          [bytes = tensor.bytes](std::uint64_t offset, std::span<std::byte> into) {
            std::memcpy(into.data(), bytes.data() + offset, into.size());
          }};
}

/// A run with one session that saves at these steps; versions are numbered from 2.
inline void make_run(const path& folder, const std::vector<int>& steps, const std::string& session = "aaaaaaaa") {
  const auto store = holdfast::storage::open_file_store(folder);
  auto opened = run_fixture::open_run(*store, {.session = session});
  REQUIRE(opened.ok());
  for (const int step : steps) REQUIRE(opened->save(run_fixture::version(static_cast<std::uint64_t>(step))).ok());
  REQUIRE(opened->note(holdfast::storage::NoteKind::close, {}, "end", {}).ok());
}

inline void flip_byte(const path& file, std::size_t at) {
  std::string bytes = content_of(file);
  REQUIRE(at < bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_file(file, bytes);
}
