#include "holdfast/storage/formats/dtype.h"

#include <string>
#include <utility>
#include <vector>

#include "catch.h"

using namespace holdfast::storage;

TEST_CASE("dtypes_have_the_names_and_sizes_of_safetensors") {
  const std::vector<std::pair<std::string, std::size_t>> expected{
      {"BOOL", 1},        {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"F8_E4M3FNUZ", 1},
      {"F8_E5M2FNUZ", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},     {"BF16", 2},    {"U32", 4},     {"I32", 4},
      {"F32", 4},         {"C64", 8}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  REQUIRE(all_dtypes().size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Dtype dtype = all_dtypes()[i];
    CHECK(to_string(dtype) == expected[i].first);
    CHECK(element_size(dtype) == expected[i].second);
    CHECK(parse_dtype(expected[i].first) == dtype);
  }
}

TEST_CASE("dtypes_that_are_not_whole_bytes_or_not_known_are_refused") {
  for (const char* name : {"F4", "F6_E2M3", "F6_E3M2", "C128", "bf16", "", "F32 ", "f32"})
    CHECK_FALSE(parse_dtype(name));
}
