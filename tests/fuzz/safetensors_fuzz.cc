// Fuzzes the strict reader of safetensors headers. The first 8 bytes of an input are the file's claimed data length.
// The rest is read twice: unchanged as the beginning of a file, and as the text of a header with its true length.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "holdfast/storage/formats/safetensors.h"

using namespace holdfast::storage;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

/// Checks the guarantees of every accepted header.
void check(SafetensorsHeader header, std::uint64_t file_bytes) {
  std::uint64_t reached = 0;
  for (const SafetensorsTensor& tensor : header.tensors) {
    require(tensor.begin == reached && tensor.end >= tensor.begin);
    reached = tensor.end;
  }
  require(header.data_begin <= file_bytes && reached == file_bytes - header.data_begin);
  if (reached > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return;

  const std::size_t count = header.tensors.size();
  const auto text = encode_safetensors_header(header);
  require(text.ok());
  const auto back = decode_safetensors_header(*text, header.data_begin + reached);
  require(back.ok() && back->tensors.size() == count && back->metadata == header.metadata);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t data_bytes = 0;
  if (size < sizeof data_bytes) return 0;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  const std::string text(reinterpret_cast<const char*>(data) + sizeof data_bytes, size - sizeof data_bytes);
  if (auto header = decode_safetensors_header(text, data_bytes); header.ok()) check(*header, data_bytes);

  std::string prefix(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  prefix += text;
  const std::uint64_t file_bytes = prefix.size() + data_bytes;
  if (file_bytes < data_bytes) return 0;
  if (auto header = decode_safetensors_header(prefix, file_bytes); header.ok()) check(*header, file_bytes);
  return 0;
}
