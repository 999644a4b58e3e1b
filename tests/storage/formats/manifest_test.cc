#include "holdfast/storage/formats/manifest.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.h"
#include "sample_manifest.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;
using namespace sample_manifest;

// The digest in the text is what `xxh128sum` prints for the lines above it.
TEST_CASE("manifest_has_the_bytes_that_the_format_says") { CHECK(encode(sample()) == kText); }

TEST_CASE("manifest_is_read_back_as_written") {
  for (Manifest manifest : {sample(), boxed(), manifest_of(uid_of(1))}) {
    const auto back = decode_manifest(encode(manifest));
    INFO(back.status().message());
    REQUIRE(back);
    same(*back, manifest);
    CHECK(encode(*back) == encode(manifest));
  }
  Manifest first = sample();
  first.parent.reset();
  const auto back = decode_manifest(encode(first));
  REQUIRE(back);
  CHECK_FALSE(back->parent);
}

TEST_CASE("manifest_finds_tensors_by_name_and_through_ties") {
  const Manifest manifest = sample();
  REQUIRE(manifest.find("a.weight"));
  CHECK(manifest.find("a.weight")->name == "a.weight");
  CHECK(manifest.find("b.weight") == manifest.find("a.weight"));
  CHECK(manifest.find("a.bias")->bytes() == 4);
  CHECK(manifest.find("a.weight")->bytes() == 24);
  for (const char* name : {"", "a", "a.weigh", "a.weight ", "c"}) CHECK_FALSE(manifest.find(name));
  CHECK(manifest.payload_bytes() == 4124);
}

TEST_CASE("manifest_keeps_every_finite_double_to_the_bit") {
  std::vector<double> numbers{0.0,
                              -0.0,
                              0.1,
                              1.0,
                              -1.0,
                              1e300,
                              5e-324,
                              2.2250738585072011e-308,
                              M_PI,
                              std::numeric_limits<double>::max(),
                              std::numeric_limits<double>::min()};
  std::uint64_t bits = 88172645463325252u;
  while (numbers.size() < 20000) {
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    double number;
    std::memcpy(&number, &bits, sizeof number);
    if (std::isfinite(number)) numbers.push_back(number);
  }
  Manifest manifest = sample();
  manifest.values = {{"numbers", numbers}};
  const auto back = decode_manifest(encode(manifest));
  REQUIRE(back);
  const auto read = back->values["numbers"].get<std::vector<double>>();
  REQUIRE(read.size() == numbers.size());
  CHECK(std::memcmp(read.data(), numbers.data(), read.size() * sizeof(double)) == 0);
}

TEST_CASE("manifest_keeps_whole_numbers_apart_from_doubles") {
  Manifest manifest = sample();
  manifest.values = {{"unsigned", std::numeric_limits<std::uint64_t>::max()},
                     {"signed", std::numeric_limits<std::int64_t>::min()},
                     {"double", 1.0}};
  const auto back = decode_manifest(encode(manifest));
  REQUIRE(back);
  CHECK(back->values == manifest.values);
  CHECK(back->values["double"].is_number_float());
}

TEST_CASE("numbers_that_are_not_finite_become_null") {
  Manifest manifest = sample();
  manifest.metrics = {{"loss", std::nan("")}};
  const auto back = decode_manifest(encode(manifest));
  REQUIRE(back);
  CHECK(back->metrics["loss"].is_null());
}

TEST_CASE("manifest_with_keys_of_a_later_release_is_read") {
  CHECK(decode_manifest(resealed(kText, "\"run\":", "\"moon\":[1,{\"a\":null}],\n\"run\":")));
  CHECK(decode_manifest(resealed(kText, "\"shape\":[4]", "\"stride\":[1],\"shape\":[4]")));
}

TEST_CASE("a_manifest_may_use_a_part_of_an_older_versions_file") {
  Manifest manifest = sample();
  manifest.files[0].name = "data/000041-51d0aa02.r0of4.safetensors";
  manifest.files[0].bytes = 5000;
  CHECK(decode_manifest(encode(manifest)));
}
