// Fuzzes the decoders of journal entries: once with the unchanged input, which nearly always fails at the digest, and
// once with the correct digest, so that the later checks are reached.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/formats/manifest.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const Manifest& manifest) {
  for (const TensorEntry& tensor : manifest.tensors) {
    std::uint64_t sum = 0;
    for (const TensorPart& part : tensor.parts) {
      require(part.file < manifest.files.size());
      require(part.begin <= part.end && part.end <= manifest.files[part.file].bytes);
      sum += part.end - part.begin;
    }
    require(sum == tensor.bytes());
    require(manifest.find(tensor.name) == &tensor);
  }
  for (const auto& [alias, name] : manifest.tied) require(manifest.find(alias) == manifest.find(name));
  const std::string text = encode(manifest);
  const auto back = decode_manifest(text);
  require(back.ok() && encode(*back) == text);
}

void decode_all(std::string_view text) {
  if (const auto manifest = decode_manifest(text)) check(*manifest);
  if (const auto open = decode_open(text)) require(decode_open(encode(*open)).ok());
  if (const auto note = decode_note(text)) require(decode_note(encode(*note)).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  decode_all(text);
  decode_all(sealed(text));
  return 0;
}
