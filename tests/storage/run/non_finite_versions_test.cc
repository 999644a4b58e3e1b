// Versions whose tensors hold NaN or infinities.
#include <cstring>
#include <limits>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "run_contents.h"

using namespace run_fixture;

namespace {

/// A version with an additional tensor, "moment", which holds `count` NaN.
SaveRequest with_nan(std::uint64_t step, std::size_t count) {
  SaveRequest request = version(step);
  request.tensors.push_back(constant_tensor("moment", 1));
  request.tensors.back().copy = [count](std::uint64_t offset, std::span<std::byte> into) {
    for (std::size_t at = 0; at < into.size(); at += sizeof(float)) {
      const bool is_nan = (offset + at) / sizeof(float) < count;
      const float value = is_nan ? std::numeric_limits<float>::quiet_NaN() : 1.0F;
      std::memcpy(into.data() + at, &value, sizeof value);
    }
  };
  return request;
}

std::vector<std::uint64_t> numbers_of(const Store& store) {
  History history;
  REQUIRE(history.refresh(store).ok());
  std::vector<std::uint64_t> numbers;
  for (const VersionRef& version : history.versions()) numbers.push_back(version.uid.seq);
  return numbers;
}

}  // namespace

TEST_CASE("a_version_records_how_many_of_its_numbers_are_not_finite") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  const auto finite = session->save(version(1));
  CHECK(finite->non_finite == 0);
  CHECK(finite->non_finite_tensors.empty());
  const auto bad = session->save(with_nan(2, 5));
  CHECK(bad->non_finite == 5);
  CHECK(bad->non_finite_tensors == std::vector<std::string>{"moment"});
  const auto read = [&](const Uid& uid) { return VersionReader::open(*store, uid)->manifest(); };
  CHECK(read(finite->uid).non_finite == std::uint64_t{0});
  CHECK(read(bad->uid).non_finite == std::uint64_t{5});
  CHECK(read(bad->uid).find("moment")->non_finite == 5);
  CHECK(read(bad->uid).find("b")->non_finite == 0);
  // A finite tensor has no "non_finite" key, and old manifests have neither key.
  CHECK(store->get(entry_name(finite->uid, EntryKind::save))->find("\"non_finite\":0,") != std::string::npos);
  Manifest old = read(finite->uid);
  old.non_finite.reset();
  CHECK(encode(old).find("non_finite") == std::string::npos);
  CHECK_FALSE(decode_manifest(encode(old))->non_finite);
}

TEST_CASE("nan_never_pushes_out_the_last_version_whose_tensors_are_finite") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  for (int step = 1; step <= 2; ++step) REQUIRE(session->save(version(step)).ok());
  for (int step = 3; step <= 4; ++step) REQUIRE(session->save(with_nan(step, 20)).ok());
  SECTION("within a session, and the drop note gives the reason") {
    CHECK(session->prune({.keep_last = 2})->size() == 1);
    REQUIRE(session.all_said->size() == 1);
    CHECK(session.all_said->back().find("version 3-aaaa") != std::string::npos);
    CHECK(numbers_of(*store) == std::vector<std::uint64_t>{3, 4, 5});
    CHECK(session->prune({.keep_last = 2})->empty());
    CHECK(session.all_said->size() == 1);  // reported only once
    History history;
    REQUIRE(history.refresh(*store).ok());
    CHECK(history.notes().back().reason.find("version 3-aaaa, the newest whose tensors are all finite") !=
          std::string::npos);
  }
  SECTION("in a session that did not write it") {
    session = open_run(*store, {.session = "bbbbbbbb", .take_over = true});
    REQUIRE(session->save(with_nan(5, 20)).ok());
    REQUIRE(session->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*store);
    CHECK(left.size() == 3);
    CHECK(left.front() == 3);
  }
  SECTION("until a finite one is among those kept") {
    REQUIRE(session->prune({.keep_last = 2}).ok());
    REQUIRE(session->save(version(5)).ok());
    REQUIRE(session->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*store);
    CHECK(left.size() == 2);
    CHECK(left.front() == 5);
  }
  SECTION("infinities in every version do not keep a version longer") {
    const auto other = open_memory_store(make_memory_image());
    auto masked = open_run(*other);
    for (int step = 1; step <= 5; ++step) REQUIRE(masked->save(with_nan(step, 7)).ok());
    REQUIRE(masked->prune({.keep_last = 2}).ok());
    CHECK(numbers_of(*other) == std::vector<std::uint64_t>{5, 6});
    REQUIRE(masked->save(with_nan(6, 8)).ok());
    REQUIRE(masked->save(with_nan(7, 9)).ok());
    REQUIRE(masked->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*other);
    CHECK(left.size() == 3);
    CHECK(left.front() == 6);
  }
}
