#include "holdfast/storage/readers/tensor_range.h"

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/sample_version.h"

using namespace holdfast::storage;
using namespace sample_version;

TEST_CASE("every_range_of_a_tensor_in_boxes_is_read") {
  // 3 × 4 × 2 elements: one box of whole rows, two that split the others in the middle dimension, one without elements.
  const Tensor whole = tensor("w", Dtype::i16, {3, 4, 2});
  TensorEntry entry{"w", whole.dtype, whole.shape, digest_of(whole.bytes), {}};
  const std::unique_ptr<Store> store = open_memory_store(make_memory_image());
  Files files;
  const auto add = [&](const std::vector<std::int64_t>& offset, const std::vector<std::int64_t>& extent) {
    std::string bytes = "four";  // before the box
    for (std::int64_t i = 0; i < extent[0]; ++i) {
      for (std::int64_t j = 0; j < extent[1]; ++j) {
        for (std::int64_t k = 0; k < extent[2]; ++k) {
          const std::int64_t at = ((offset[0] + i) * 4 + offset[1] + j) * 2 + offset[2] + k;
          bytes += whole.bytes.substr(static_cast<std::size_t>(at) * 2, 2);
        }
      }
    }
    entry.parts.push_back({files.size(), 4, bytes.size(), offset, extent});
    const std::string name = "hints/" + std::to_string(files.size());
    REQUIRE(store->put(name, bytes));
    auto object = store->open(name);
    REQUIRE(object);
    files.push_back(*std::move(object));
  };
  add({1, 1, 0}, {2, 3, 2});
  add({0, 0, 0}, {1, 4, 2});
  add({1, 0, 0}, {2, 1, 1});
  add({1, 0, 1}, {2, 1, 1});
  add({3, 0, 0}, {0, 4, 2});

  for (std::size_t begin = 0; begin <= whole.bytes.size(); ++begin) {
    for (std::size_t end = begin; end <= whole.bytes.size(); ++end) {
      std::string read(end - begin, '?');
      const Status status = read_tensor_range(files, entry, begin, std::as_writable_bytes(std::span(read)));
      REQUIRE(status);
      REQUIRE(read == whole.bytes.substr(begin, end - begin));
    }
  }
}
