// The code that opens, reads and verifies versions detects every single-bit error and every truncation of a version of
// exactly 64 KiB, manifest included.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/image_store.h"
#include "storage/sample_version.h"
#include "stored_version.h"

using namespace holdfast::storage;
using namespace sample_version;
using namespace stored_version;

namespace {

constexpr std::size_t kVersionBytes = 64 << 10;

/// A version whose manifest and payload have 64 KiB together: its last tensor fills the remaining bytes.
ImageStore sized_version() {
  std::int64_t filler = 40000;  // five digits, like the final value, so that the second attempt is exact
  while (true) {
    const std::vector<Tensor> tensors{tensor("layer.weight", Dtype::f32, {64, 32}),
                                      tensor("layer.bias", Dtype::f32, {32}), tensor("steps", Dtype::i64, {}),
                                      tensor("empty", Dtype::f32, {0}), tensor("filler", Dtype::u8, {filler})};
    const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
    REQUIRE(publish(*store, kUid, tensors));
    ImageStore image(*store);
    const std::size_t bytes = image.objects.at(kManifest).size() + image.objects.at(kPayload).size();
    if (bytes == kVersionBytes) return image;
    REQUIRE(filler == 40000);
    filler += static_cast<std::int64_t>(kVersionBytes) - static_cast<std::int64_t>(bytes);
  }
}

/// The outcome of opening a version and reading all of it.
Status open_and_read(const Store& store) {
  const auto reader = VersionReader::open(store, kUid);
  if (!reader) return reader.status();
  Room room(reader->manifest());
  return reader->read(room.targets, {.check_digests = true, .threads = 1});
}

bool is_refused(const Status& status) {
  return status.code() == StatusCode::corrupt || status.code() == StatusCode::incomplete;
}

}  // namespace

TEST_CASE("every_bit_flip_and_every_truncation_of_a_version_is_detected", "[full]") {
  ImageStore image = sized_version();
  std::string& manifest = image.objects.at(kManifest);
  std::string& payload = image.objects.at(kPayload);
  REQUIRE(manifest.size() + payload.size() == kVersionBytes);
  REQUIRE(open_and_read(image));
  // Opened only once, because open() does not read the payload's bytes.
  const auto reader = VersionReader::open(image, kUid);
  REQUIRE(reader);
  REQUIRE(reader->verify().empty());
  Room room(reader->manifest());

  std::size_t flips = 0, flips_detected = 0, truncations = 0, truncations_detected = 0;
  const auto flip = [](std::string& bytes, std::size_t bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  };
  for (std::size_t bit = 0; bit < manifest.size() * 8; ++bit) {
    flip(manifest, bit);
    ++flips;
    if (is_refused(VersionReader::open(image, kUid).status())) ++flips_detected;
    flip(manifest, bit);
  }
  for (std::size_t bit = 0; bit < payload.size() * 8; ++bit) {
    flip(payload, bit);
    ++flips;
    const bool refused = is_refused(reader->read(room.targets, {.check_digests = true, .threads = 1}));
    const std::vector<Finding> findings = reader->verify();
    const bool located =
        !findings.empty() && findings[0].file == kPayload && findings[0].begin <= bit / 8 && bit / 8 < findings[0].end;
    if (refused && located) ++flips_detected;
    flip(payload, bit);
  }
  for (std::string* object : {&manifest, &payload}) {
    const std::string whole = *object;
    for (std::size_t length = 0; length < whole.size(); ++length) {
      object->assign(whole, 0, length);
      ++truncations;
      if (is_refused(open_and_read(image))) ++truncations_detected;
    }
    *object = whole;
  }
  CHECK(open_and_read(image));
  CHECK(reader->verify().empty());
  std::printf("bytes=%zu flips=%zu detected=%zu truncations=%zu detected=%zu\n", manifest.size() + payload.size(),
              flips, flips_detected, truncations, truncations_detected);
  CHECK(flips == kVersionBytes * 8);
  CHECK(flips_detected == flips);
  CHECK(truncations == kVersionBytes);
  CHECK(truncations_detected == truncations);
}
