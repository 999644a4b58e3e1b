#include "holdfast/storage/run/payload.h"

#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/formats/safetensors.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/sample_version.h"
#include "storage/scratch_folder.h"

using namespace holdfast::storage;
using namespace sample_version;

namespace {

const std::string kName = payload_name({uid_of(42), 0, 1});

}  // namespace

TEST_CASE("payload_holds_every_tensor_at_the_place_and_with_the_digest_in_its_table") {
  const std::vector<Tensor> tensors = all_sorts();
  ScratchFolder folder;
  std::unique_ptr<Store> stores[] = {open_memory_store(make_memory_image()), open_file_store(folder / "run")};
  for (const std::unique_ptr<Store>& store : stores) {
    REQUIRE(store->prepare());
    const auto table = write_payload(*store, kName, {{"format", "pt"}}, sources_of(tensors));
    REQUIRE(table);
    const auto file = store->get(kName);
    REQUIRE(file);
    CHECK(table->file.name == kName);
    CHECK(table->file.bytes == file->size());
    CHECK(table->file.digest == digest_of(*file));
    CHECK(table->file.header_bytes % kPayloadAlignment == 0);
    CHECK(table->file.header_digest == digest_of(std::string_view(*file).substr(0, table->file.header_bytes)));
    const auto header = decode_safetensors_header(*file, file->size());
    REQUIRE(header);
    CHECK(header->metadata == std::map<std::string, std::string>{{"format", "pt"}});
    CHECK(header->data_begin == table->file.header_bytes);

    REQUIRE(table->tensors.size() == tensors.size());
    for (std::size_t i = 1; i < tensors.size(); ++i) CHECK(table->tensors[i - 1].name < table->tensors[i].name);
    for (const Tensor& tensor : tensors) {
      Manifest manifest;
      manifest.tensors = table->tensors;
      const TensorEntry* entry = manifest.find(tensor.name);
      REQUIRE(entry);
      CHECK(entry->dtype == tensor.dtype);
      CHECK(entry->shape == tensor.shape);
      REQUIRE(entry->parts.size() == 1);
      const TensorPart& part = entry->parts[0];
      CHECK(part.file == 0);
      CHECK(file->substr(part.begin, part.end - part.begin) == tensor.bytes);
      CHECK(entry->digest == digest_of(tensor.bytes));
    }
  }
}

TEST_CASE("payload_of_the_same_state_has_the_same_bytes") {
  std::vector<Tensor> tensors = all_sorts();
  const std::unique_ptr<Store> one = open_memory_store(make_memory_image()),
                               other = open_memory_store(make_memory_image());
  REQUIRE(write_payload(*one, kName, {}, sources_of(tensors)));
  std::reverse(tensors.begin(), tensors.end());
  REQUIRE(write_payload(*other, kName, {}, sources_of(tensors)));
  CHECK(*one->get(kName) == *other->get(kName));
}

TEST_CASE("payload_copies_large_tensors_in_order_and_in_pieces") {
  ScratchFolder folder;
  const std::unique_ptr<Store> store = open_file_store(folder / "run");
  REQUIRE(store->prepare());
  const std::int64_t bytes = (9 << 20) + 5;  // more than one write buffer
  const Tensor big = tensor("big", Dtype::u8, {bytes}), odd = tensor("odd", Dtype::u8, {4097});
  std::uint64_t reached = 0;
  TensorSource source = big.source();
  source.copy = [&, copy = source.copy](std::uint64_t offset, std::span<std::byte> into) {
    CHECK(offset == reached);
    CHECK(into.size() <= 1 << 20);
    reached += into.size();
    copy(offset, into);
  };
  const auto table = write_payload(*store, kName, {}, {odd.source(), source});
  REQUIRE(table);
  CHECK(reached == static_cast<std::uint64_t>(bytes));
  CHECK(table->tensors[0].digest == digest_of(big.bytes));
  CHECK(table->tensors[1].digest == digest_of(odd.bytes));
  const auto file = store->get(kName);
  REQUIRE(file);
  CHECK(file->substr(table->file.header_bytes) == big.bytes + odd.bytes);
  CHECK(table->file.digest == digest_of(*file));
}

TEST_CASE("payload_without_tensors_is_a_valid_file") {
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  const auto table = write_payload(*store, kName, {}, {});
  REQUIRE(table);
  CHECK(table->file.bytes == table->file.header_bytes);
  CHECK(table->file.digest == digest_of(*store->get(kName)));
}

TEST_CASE("payload_refuses_what_safetensors_cannot_hold_before_it_creates_anything") {
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  const Tensor bad = tensor("__metadata__", Dtype::f32, {1});
  const auto table = write_payload(*store, kName, {}, {bad.source()});
  REQUIRE_FALSE(table);
  CHECK(table.code() == StatusCode::invalid);
  CHECK(store->list("data")->empty());
}

TEST_CASE("payload_is_never_written_over_an_older_one") {
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  REQUIRE(write_payload(*store, kName, {}, {}));
  const Tensor other = tensor("a", Dtype::f32, {1});
  CHECK(write_payload(*store, kName, {}, {other.source()}).code() == StatusCode::already_exists);
}
