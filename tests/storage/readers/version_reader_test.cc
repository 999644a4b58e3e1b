#include "holdfast/storage/readers/version_reader.h"

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/image_store.h"
#include "storage/sample_version.h"
#include "storage/scratch_folder.h"
#include "storage/sealed_text.h"
#include "stored_version.h"

using namespace holdfast::storage;
using namespace sample_version;
using namespace stored_version;

TEST_CASE("version_is_read_back_as_saved_on_any_number_of_threads") {
  std::vector<Tensor> tensors = all_sorts();
  tensors.push_back(tensor("large", Dtype::u8, {(3 << 20) + 17}));  // several pieces
  ScratchFolder folder;
  std::unique_ptr<Store> stores[] = {open_memory_store(make_memory_image()), open_file_store(folder / "run")};
  for (const std::unique_ptr<Store>& store : stores) {
    REQUIRE(store->prepare());
    REQUIRE(publish(*store, kUid, tensors));
    const auto reader = VersionReader::open(*store, kUid);
    REQUIRE(reader);
    for (int threads : {0, 1, 2, 8}) {
      for (bool check_digests : {true, false}) {
        Room room(reader->manifest());
        const Status status = reader->read(room.targets, {check_digests, threads});
        INFO(status.message());
        REQUIRE(status);
        for (const Tensor& tensor : tensors) CHECK(room.of(tensor.name) == tensor.bytes);
      }
    }
    std::uint64_t last = 0, total = 0;
    CHECK(reader
              ->verify([&](std::uint64_t done, std::uint64_t all) {
                CHECK(done > last);
                last = done;
                total = all;
              })
              .empty());
    CHECK(last == reader->manifest().payload_bytes());
    CHECK(total == last);
  }
}

TEST_CASE("one_large_tensor_is_read_ahead_of_its_digest") {
  const std::vector<Tensor> tensors{tensor("large", Dtype::u8, {(33 << 20) + 5}), tensor("small", Dtype::u8, {5})};
  ImageStore image = image_of(tensors);
  {
    const auto reader = VersionReader::open(image, kUid);
    REQUIRE(reader);
    Room room(reader->manifest());
    REQUIRE(reader->read(room.targets, {true, 2}));
    CHECK(room.of("large") == tensors[0].bytes);
    image.objects[kPayload][4096 + (20 << 20)] ^= 1;
    CHECK(reader->read(room.targets, {true, 2}).code() == StatusCode::corrupt);
    image.objects[kPayload].resize(20 << 20);  // while it is being read
    CHECK(reader->read(room.targets, {true, 2}).code() == StatusCode::incomplete);
  }
}

namespace {

/// Reads throw std::bad_alloc on every thread except the one that constructed the store.
class NoMemoryElsewhere final : public ImageStore {
 public:
  using ImageStore::ImageStore;
  Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
    auto object = ImageStore::open(name);
    if (!object || name != kPayload) return object;
    return std::unique_ptr<ObjectReader>(std::make_unique<Reader>(*std::move(object)));
  }

 private:
  class Reader final : public ObjectReader {
   public:
    explicit Reader(std::unique_ptr<ObjectReader> object) : object_(std::move(object)) {}
    std::uint64_t bytes() const override { return object_->bytes(); }
    Status read(std::uint64_t offset, std::span<std::byte> into) const override {
      if (std::this_thread::get_id() == here_) {
        thrown_elsewhere_.wait(false);
        return object_->read(offset, into);
      }
      thrown_elsewhere_ = true;
      thrown_elsewhere_.notify_all();
      throw std::bad_alloc();
    }

   private:
    const std::unique_ptr<ObjectReader> object_;
    const std::thread::id here_ = std::this_thread::get_id();
    mutable std::atomic<bool> thrown_elsewhere_ = false;  // else this thread might read all of it
  };
};

}  // namespace

TEST_CASE("out_of_memory_on_another_thread_is_a_status_and_the_process_continues") {
  const auto read = [](const std::vector<Tensor>& tensors) {
    const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
    REQUIRE(publish(*store, kUid, tensors));
    const NoMemoryElsewhere scarce(*store);
    const auto reader = VersionReader::open(scarce, kUid);
    REQUIRE(reader);
    Room room(reader->manifest());
    const Status status = reader->read(room.targets, {true, 2});
    CHECK(status.code() == StatusCode::unreadable);
    CHECK(status.message() == "there is not enough memory to read the version");
  };
  SECTION("on one of several that read") {
    read({tensor("a", Dtype::u8, {5}), tensor("b", Dtype::u8, {6}), tensor("c", Dtype::u8, {7})});
  }
  SECTION("on one that reads ahead") { read({tensor("large", Dtype::u8, {(33 << 20) + 5})}); }
}

TEST_CASE("targets_that_do_not_fit_are_refused_before_anything_is_read") {
  const ImageStore image = image_of({tensor("a", Dtype::f32, {4})});
  const auto reader = VersionReader::open(image, kUid);
  REQUIRE(reader);
  std::string bytes(17, '\xee');
  const auto room = [&](std::size_t size) { return std::as_writable_bytes(std::span(bytes.data(), size)); };
  for (std::size_t size : {std::size_t{0}, std::size_t{15}, std::size_t{17}}) {
    const Status status = reader->read({{"a", room(16)}, {"a", room(size)}});
    CHECK(status.code() == StatusCode::invalid);
    CHECK(status.message() == "tensor \"a\" has 16 bytes, the target has room for " + std::to_string(size));
  }
  CHECK(reader->read({{"b", room(16)}}).message() == "version 42-7f3a has no tensor \"b\"");
  CHECK(bytes == std::string(17, '\xee'));
}

TEST_CASE("tied_names_read_the_bytes_they_are_stored_under") {
  const std::vector<Tensor> tensors{tensor("a", Dtype::f32, {4})};
  ImageStore image = image_of(tensors);
  image.objects[kManifest] = resealed(image.objects[kManifest], "\"tied\":{}", "\"tied\":{\"twin\":\"a\"}");
  const auto reader = VersionReader::open(image, kUid);
  REQUIRE(reader);
  std::string bytes(16, '\0');
  REQUIRE(reader->read({{"twin", std::as_writable_bytes(std::span(bytes))}}));
  CHECK(bytes == tensors[0].bytes);
}

TEST_CASE("a_tensor_is_assembled_from_its_boxes") {
  // 4 × 6 elements as a left and a right half; the right half is stored in two boxes. Files of three ranks.
  const Tensor whole = tensor("w", Dtype::i16, {4, 6});
  struct Box {
    std::vector<std::int64_t> offset, extent;
  };
  const Box boxes[] = {{{0, 0}, {4, 2}}, {{0, 2}, {3, 4}}, {{3, 2}, {1, 4}}};
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  Manifest manifest = manifest_of(kUid);
  manifest.world_size = 3;
  TensorEntry entry{"w", whole.dtype, whole.shape, digest_of(whole.bytes), {}};
  for (int rank = 0; rank < 3; ++rank) {
    const Box& box = boxes[rank];
    Tensor part{"w", whole.dtype, box.extent, ""};
    for (std::int64_t row = 0; row < box.extent[0]; ++row) {
      const std::int64_t at = (box.offset[0] + row) * 6 + box.offset[1];
      part.bytes += whole.bytes.substr(static_cast<std::size_t>(at) * 2, static_cast<std::size_t>(box.extent[1]) * 2);
    }
    auto table = write_payload(*store, payload_name({kUid, rank, 3}), {}, {part.source()});
    REQUIRE(table);
    TensorPart place = table->tensors[0].parts[0];
    place.file = static_cast<std::size_t>(rank);
    place.offset = box.offset;
    place.extent = box.extent;
    entry.parts.push_back(place);
    manifest.files.push_back(table->file);
  }
  manifest.tensors = {entry};
  auto staged = store->stage(kManifest, encode(manifest));
  REQUIRE(staged);
  REQUIRE((*staged)->publish());

  ImageStore image(*store);
  const auto reader = VersionReader::open(image, kUid);
  INFO(reader.status().message());
  REQUIRE(reader);
  for (bool check_digests : {true, false}) {
    Room room(reader->manifest());
    REQUIRE(reader->read(room.targets, {check_digests, 1}));
    CHECK(room.of("w") == whole.bytes);
  }
  CHECK(reader->verify().empty());
  image.objects[payload_name({kUid, 1, 3})].back() ^= 1;
  Room room(reader->manifest());
  CHECK(reader->read(room.targets).code() == StatusCode::corrupt);
  CHECK_FALSE(reader->verify().empty());
}
