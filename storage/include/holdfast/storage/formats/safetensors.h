// safetensors: the payload's file format. Source: huggingface/safetensors, README "Format" and the reference reader in
// safetensors/src/tensor.rs. A file is an 8-byte little-endian header length N, N bytes of JSON, then the data.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/formats/dtype.h"
#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

struct SafetensorsTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // relative to the end of the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsTensor> tensors;  // by `begin`
  std::uint64_t data_begin = 0;            // 8 + N: absolute offset of the first tensor byte
};

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;
/// Our files pad the header with spaces so that data starts at a multiple of this.
inline constexpr std::uint64_t kPayloadAlignment = 4096;

/// Lays tensors out (larger elements first, then by name, so that each is aligned to its own type) and encodes the
/// header, length prefix and padding included. Sets `begin`, `end`, order and `data_begin` in `header`. The same
/// tensors and metadata give the same bytes. `invalid`: a tensor named "__metadata__", two of one name, a name that is
/// not UTF-8, a negative or overflowing shape, a header above the limit.
Result<std::string> encode_safetensors_header(SafetensorsHeader& header);

/// Strict: all rules of the reference reader, and also no duplicate keys, nesting at most 8 deep, no arithmetic
/// overflow.
/// `prefix` is the file's beginning, at least 8 + N bytes; `file_bytes` the whole file's length.
Result<SafetensorsHeader> decode_safetensors_header(std::string_view prefix, std::uint64_t file_bytes);

/// Reads just the header of a stored object.
Result<SafetensorsHeader> read_safetensors_header(const ObjectReader& object);

}  // namespace holdfast::storage
