// Versions with damaged, missing or contradicting bytes: what a reader returns, and what verify() finds.
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/readers/version_reader.h"
#include "storage/image_store.h"
#include "storage/read_only_store.h"
#include "storage/sample_version.h"
#include "storage/sealed_text.h"
#include "stored_version.h"

using namespace holdfast::storage;
using namespace sample_version;
using namespace stored_version;

namespace {

/// Flips a bit of the payload, at byte `at`, in the first `wrong_reads` reads that include it.
class FlakyStore final : public ReadOnlyStore {
 public:
  FlakyStore(const Store& store, std::uint64_t at, int wrong_reads)
      : store_(store), at_(at), wrong_reads_(wrong_reads) {}
  Capabilities capabilities() const override { return store_.capabilities(); }
  std::string location() const override { return store_.location(); }
  Result<std::vector<std::string>> list(const std::string& folder) const override { return store_.list(folder); }
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
    auto object = store_.open(name);
    if (!object || name != kPayload) return object;
    return std::unique_ptr<ObjectReader>(std::make_unique<Reader>(*this, std::move(*object)));
  }

 private:
  class Reader final : public ObjectReader {
   public:
    Reader(const FlakyStore& store, std::unique_ptr<ObjectReader> object) : store_(store), object_(std::move(object)) {}
    std::uint64_t bytes() const override { return object_->bytes(); }
    Status read(std::uint64_t offset, std::span<std::byte> into) const override {
      Status status = object_->read(offset, into);
      if (offset <= store_.at_ && store_.at_ < offset + into.size() && store_.wrong_reads_ > 0) {
        --store_.wrong_reads_;
        into[store_.at_ - offset] ^= std::byte{1};
      }
      return status;
    }

   private:
    const FlakyStore& store_;
    std::unique_ptr<ObjectReader> object_;
  };

  const Store& store_;
  const std::uint64_t at_;
  mutable int wrong_reads_;
};

}  // namespace

TEST_CASE("read_names_the_file_the_tensor_and_the_bytes_that_are_wrong") {
  const std::vector<Tensor> tensors{tensor("a", Dtype::f32, {100}), tensor("b", Dtype::f32, {100})};
  ImageStore image = image_of(tensors);
  const auto reader = VersionReader::open(image, kUid);
  REQUIRE(reader);
  std::string& file = image.objects[kPayload];
  Room room(reader->manifest());

  file[4096 + 400 + 7] ^= 0x10;
  const Status status = reader->read(room.targets);
  CHECK(status.code() == StatusCode::corrupt);
  CHECK(status.message() ==
        "version 42-7f3a: tensor \"b\" (bytes 4496 to 4896 of " + kPayload + ") does not match its digest");
  CHECK(reader->read({room.targets[0]}));         // "a" alone is intact
  CHECK(reader->read(room.targets, {false, 1}));  // digests are not checked
  const std::vector<Finding> findings = reader->verify();
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].code == StatusCode::corrupt);
  CHECK(findings[0].file == kPayload);
  CHECK(findings[0].tensor == "b");
  CHECK(findings[0].begin == 4496);
  CHECK(findings[0].end == 4896);
  CHECK(findings[0].what == "the tensor does not match its digest");
  file[4096 + 400 + 7] ^= 0x10;

  file[4000] ^= 1;  // in the header's padding
  const Status header = reader->read({room.targets[0]});
  CHECK(header.code() == StatusCode::corrupt);
  CHECK(header.message() ==
        "version 42-7f3a: the header (bytes 0 to 4096 of " + kPayload + ") does not match its digest");
  const std::vector<Finding> header_findings = reader->verify();
  REQUIRE(header_findings.size() == 2);  // its digest, and that it cannot be parsed
  CHECK(header_findings[0].tensor.empty());
  CHECK(header_findings[0].begin == 0);
  CHECK(header_findings[0].end == 4096);
  file[4000] ^= 1;
  CHECK(reader->verify().empty());
}

TEST_CASE("a_digest_that_is_wrong_once_is_read_again") {
  const std::vector<Tensor> tensors{tensor("a", Dtype::f32, {100})};
  const ImageStore image = image_of(tensors);
  for (const std::uint64_t at : {std::uint64_t{100}, std::uint64_t{4100}}) {
    for (int wrong_reads : {1, 2}) {
      const FlakyStore flaky(image, at, wrong_reads);
      const auto reader = VersionReader::open(flaky, kUid);
      REQUIRE(reader);
      Room room(reader->manifest());
      const Status status = reader->read(room.targets);
      CHECK(status.code() == (wrong_reads == 1 ? StatusCode::ok : StatusCode::corrupt));
      if (status) CHECK(room.of("a") == tensors[0].bytes);
    }
  }
}

TEST_CASE("kinds_of_damaged_versions_are_distinguished") {
  const ImageStore whole = image_of({tensor("a", Dtype::f32, {4})});
  const auto open = [](const ImageStore& image) { return VersionReader::open(image, kUid).status(); };
  REQUIRE(open(whole));

  ImageStore image = whole;
  image.objects.erase(kPayload);
  CHECK(open(image).code() == StatusCode::incomplete);
  CHECK(open(image).message() == "version 42-7f3a lacks its file " + kPayload);

  image = whole;
  image.objects[kPayload].pop_back();
  CHECK(open(image).code() == StatusCode::incomplete);
  CHECK(open(image).message() == kPayload + " has 4111 bytes instead of 4112");

  image = whole;
  image.objects[kPayload] += ' ';
  CHECK(open(image).code() == StatusCode::corrupt);

  image = whole;
  image.objects[kManifest].pop_back();
  CHECK(open(image).code() == StatusCode::corrupt);
  CHECK(open(image).message() == kManifest + ": the manifest does not end with its digest: it is cut short or damaged");

  image = whole;
  image.objects.erase(kManifest);
  CHECK(open(image).code() == StatusCode::not_found);

  image = whole;
  image.objects[kManifest] = encode(manifest_of(uid_of(43)));
  CHECK(open(image).code() == StatusCode::corrupt);
  CHECK(open(image).message() == kManifest + " is the manifest of another version, 000043-7f3a9c1e");
}

TEST_CASE("verify_finds_a_manifest_that_contradicts_the_payload") {
  const std::vector<Tensor> tensors{tensor("a", Dtype::f32, {4}), tensor("b", Dtype::f32, {4})};
  const ImageStore whole = image_of(tensors);
  const auto verify = [&](const std::string& from, const std::string& to) {
    ImageStore image = whole;
    image.objects[kManifest] = resealed(image.objects[kManifest], from, to);
    const auto reader = VersionReader::open(image, kUid);
    REQUIRE(reader);
    return reader->verify();
  };
  const auto of_name = verify("\n\"b\":", "\n\"c\":");
  REQUIRE(of_name.size() == 1);
  CHECK(of_name[0].tensor == "c");
  CHECK(of_name[0].what == "the header and the manifest describe the tensor differently");

  const std::string b_digest = digest_of(tensors[1].bytes).hex();
  const auto of_shape = verify("[4],\"digest\":\"" + b_digest, "[2,2],\"digest\":\"" + b_digest);
  REQUIRE(of_shape.size() == 1);
  CHECK(of_shape[0].tensor == "b");

  const std::string file_digest = digest_of(whole.objects.at(kPayload)).hex();
  const auto of_file = verify(file_digest, std::string(32, '0'));
  REQUIRE(of_file.size() == 1);
  CHECK(of_file[0].tensor.empty());
  CHECK(of_file[0].end == 4128);
}

TEST_CASE("verify_continues_after_unreadable_bytes") {
  ImageStore image = image_of(
      {tensor("a", Dtype::u8, {3 << 20}), tensor("b", Dtype::u8, {3 << 20}), tensor("c", Dtype::u8, {1 << 20})});
  const auto reader = VersionReader::open(image, kUid);
  REQUIRE(reader);
  image.objects[kPayload][4096 + 100] ^= 1;
  image.objects[kPayload].resize(4096 + (5 << 20));
  const std::vector<Finding> findings = reader->verify();
  REQUIRE(findings.size() == 4);
  CHECK(findings[0].tensor == "a");
  CHECK(findings[0].code == StatusCode::corrupt);
  CHECK(findings[1].tensor == "b");
  CHECK(findings[1].code == StatusCode::incomplete);
  CHECK(findings[1].begin == 4096 + (5 << 20));
  CHECK(findings[1].end == 4096 + (6 << 20));
  CHECK(findings[2].tensor == "c");
  CHECK(findings[2].code == StatusCode::incomplete);
  CHECK(findings[3].tensor.empty());  // the header describes more data than the file has
}
