#include "holdfast/storage/formats/safetensors.h"

#include <string>
#include <vector>

#include "catch.h"

using namespace holdfast::storage;

namespace {

std::string with_length(const std::string& json) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return file + json;
}

SafetensorsTensor entry(const std::string& name, Dtype dtype, std::vector<std::int64_t> shape) {
  return {name, dtype, std::move(shape), 0, 0};
}

}  // namespace

TEST_CASE("safetensors_header_is_encoded_as_the_format_specifies") {
  SafetensorsHeader header;
  header.metadata = {{"format", "pt"}, {"holdfast.uid", "000042-7f3a9c1e"}};
  header.tensors = {entry("b", Dtype::u8, {3}), entry("a", Dtype::f32, {2, 3}), entry("\"\n\xc3\xa9", Dtype::bf16, {}),
                    entry("z", Dtype::f64, {0, 5}), entry("c", Dtype::f32, {1})};
  const auto text = encode_safetensors_header(header);
  REQUIRE(text);
  const std::string json = R"({"__metadata__":{"format":"pt","holdfast.uid":"000042-7f3a9c1e"},)"
                           R"("z":{"dtype":"F64","shape":[0,5],"data_offsets":[0,0]},)"
                           R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                           R"("c":{"dtype":"F32","shape":[1],"data_offsets":[24,28]},)"
                           R"("\"\né":{"dtype":"BF16","shape":[],"data_offsets":[28,30]},)"
                           R"("b":{"dtype":"U8","shape":[3],"data_offsets":[30,33]}})";
  CHECK(*text == with_length(json + std::string(kPayloadAlignment - 8 - json.size(), ' ')));
  CHECK(header.data_begin == kPayloadAlignment);
  CHECK(header.tensors[1].name == "a");
  CHECK(header.tensors[1].end == 24);
}

TEST_CASE("safetensors_header_is_read_back_as_written_whatever_its_length") {
  for (std::size_t name_length = 1; name_length < 9000; name_length += 397) {
    SafetensorsHeader header;
    header.tensors = {entry(std::string(name_length, 'n'), Dtype::i64, {7}), entry("small", Dtype::boolean, {2, 2})};
    const auto text = encode_safetensors_header(header);
    REQUIRE(text);
    CHECK(text->size() % kPayloadAlignment == 0);
    const auto back = decode_safetensors_header(*text, text->size() + 60);
    REQUIRE(back);
    CHECK(back->data_begin == text->size());
    REQUIRE(back->tensors.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(back->tensors[i].name == header.tensors[i].name);
      CHECK(back->tensors[i].dtype == header.tensors[i].dtype);
      CHECK(back->tensors[i].shape == header.tensors[i].shape);
      CHECK(back->tensors[i].begin == header.tensors[i].begin);
      CHECK(back->tensors[i].end == header.tensors[i].end);
    }
  }
}

TEST_CASE("safetensors_bytes_do_not_depend_on_the_order_of_tensors") {
  SafetensorsHeader one, other;
  for (int i = 0; i < 40; ++i) one.tensors.push_back(entry("t" + std::to_string(i), all_dtypes()[i % 19], {i, 3}));
  other.tensors.assign(one.tensors.rbegin(), one.tensors.rend());
  const auto a = encode_safetensors_header(one), b = encode_safetensors_header(other);
  REQUIRE(a);
  REQUIRE(b);
  CHECK(*a == *b);
  for (const SafetensorsTensor& each : one.tensors) CHECK(each.begin % element_size(each.dtype) == 0);
}

TEST_CASE("safetensors_header_without_tensors_is_valid") {
  SafetensorsHeader header;
  const auto text = encode_safetensors_header(header);
  REQUIRE(text);
  const auto back = decode_safetensors_header(*text, text->size());
  REQUIRE(back);
  CHECK(back->tensors.empty());
}

TEST_CASE("tensors_that_safetensors_cannot_hold_are_refused_with_a_sentence") {
  const std::int64_t big = std::int64_t{1} << 62;
  struct Row {
    std::vector<SafetensorsTensor> tensors;
    const char* sentence;
  };
  const Row rows[] = {
      {{entry("__metadata__", Dtype::f32, {1})},
       "a tensor is named \"__metadata__\", which is reserved by the safetensors format: rename it"},
      {{entry("a", Dtype::f32, {1}), entry("b", Dtype::f32, {1}), entry("a", Dtype::u8, {1})},
       "two tensors are named \"a\": rename one"},
      {{entry("caf\xe9", Dtype::f32, {1})}, "a tensor's name is not UTF-8: rename it"},
      {{entry("a", Dtype::f32, {-1})}, "the tensor \"a\" has an impossible shape"},
      {{entry("a", Dtype::f32, {big, 4})}, "the tensor \"a\" has an impossible shape"},
      {{entry("a", Dtype::f64, {big})}, "the tensor \"a\" has an impossible shape"},
      {{entry("a", Dtype::u8, {big}), entry("b", Dtype::u8, {big})}, "the tensor \"b\" has an impossible shape"},
      {{entry(std::string(kMaxSafetensorsHeader, 'n'), Dtype::f32, {1})},
       "the names of 1 tensor need a safetensors header above 100 MB: save fewer tensors or shorter names"},
  };
  for (const Row& row : rows) {
    SafetensorsHeader header;
    header.tensors = row.tensors;
    const auto text = encode_safetensors_header(header);
    REQUIRE_FALSE(text);
    CHECK(text.code() == StatusCode::invalid);
    CHECK(text.status().message() == row.sentence);
  }
  SafetensorsHeader header;
  header.metadata = {{"key", "\xff"}};
  CHECK(encode_safetensors_header(header).code() == StatusCode::invalid);
}

TEST_CASE("malformed_safetensors_headers_are_refused_with_a_sentence") {
  const StatusCode ok = StatusCode::ok, corrupt = StatusCode::corrupt, incomplete = StatusCode::incomplete;
  struct Row {
    std::string json;
    std::uint64_t data_bytes;
    StatusCode code;
    const char* sentence;
  };
  const std::string a = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  const auto one = [](const std::string& info) { return "{\"a\":{" + info + "}}"; };
  const char* not_json = "the safetensors header is not valid JSON at byte";
  const char* no_end = "the safetensors header does not end with '}' and spaces";
  const Row rows[] = {
      {"{" + a + "}", 4, ok, ""},
      {"{" + a + "}   ", 4, ok, ""},
      {"{}", 0, ok, ""},
      {"{\"__metadata__\":{}," + a + "}", 4, ok, ""},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"later":[[1]])"), 4, ok, ""},
      {one(R"("dtype":"U8","shape":[0,9223372036854775807],"data_offsets":[0,0])"), 0, ok, ""},
      // The text
      {"", 0, corrupt, no_end},
      {"    ", 0, corrupt, no_end},
      {"{" + a + "}\n", 4, corrupt, no_end},
      {"{" + a + "}" + std::string(1, '\0'), 4, corrupt, no_end},
      {"{" + a, 4, corrupt, not_json},
      {" {" + a + "}", 4, corrupt, "the safetensors header does not begin with '{'"},
      {"[{}", 0, corrupt, "the safetensors header does not begin with '{'"},
      {"{" + a + "}{}", 4, corrupt, not_json},
      {"{" + a + ",}", 4, corrupt, not_json},
      {"{\"\xff\":1}", 4, corrupt, not_json},
      {"{" + a + "," + a + "}", 4, corrupt, "the safetensors header has the key \"a\" twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, corrupt,
       "the safetensors header has the key \"__metadata__\" twice"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", 0, corrupt, "the safetensors header has the key \"k\" twice"},
      {one(R"("dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header has the key \"dtype\" twice"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"later":[[[[[[[1]]]]]]])"), 4, corrupt,
       "the safetensors header nests deeper than 8 levels"},
      {R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}", 0, corrupt,
       "the safetensors header nests deeper than 8 levels"},
      // Metadata
      {R"({"__metadata__":[]})", 0, corrupt, "the safetensors header has a \"__metadata__\" that is not an object"},
      {R"({"__metadata__":null})", 0, corrupt, "the safetensors header has a \"__metadata__\" that is not an object"},
      {R"({"__metadata__":{"k":1}})", 0, corrupt,
       "the safetensors header has the metadata \"k\", which is not a string"},
      {R"({"__metadata__":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, corrupt,
       "the safetensors header has the metadata \"data_offsets\", which is not a string"},
      // One tensor
      {R"({"a":1})", 0, corrupt, "the safetensors header gives the tensor \"a\" no description"},
      {R"({"a":null})", 0, corrupt, "the safetensors header gives the tensor \"a\" no description"},
      {one(R"("shape":[4],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no dtype"},
      {one(R"("dtype":8,"shape":[4],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no dtype"},
      {one(R"("dtype":"F4","shape":[4],"data_offsets":[0,2])"), 2, StatusCode::unsupported,
       "the tensor \"a\" has the dtype \"F4\", which this Holdfast does not know"},
      {one(R"("dtype":"U8","data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no shape"},
      {one(R"("dtype":"U8","shape":4,"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no shape"},
      {one(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" a shape that is not a list of extents"},
      {one(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" a shape that is not a list of extents"},
      {one(R"("dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" a shape that is not a list of extents"},
      {one(R"("dtype":"U8","shape":["4"],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" a shape that is not a list of extents"},
      {one(R"("dtype":"U8","shape":[4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no pair of data_offsets"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no pair of data_offsets"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,8])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" no pair of data_offsets"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[0,4.0])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data_offsets that are not whole numbers"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[-4,0])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data_offsets that are not whole numbers"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data that ends before it begins"},
      {one(R"("dtype":"U8","shape":[5],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data_offsets that do not fit its dtype and shape"},
      {one(R"("dtype":"U16","shape":[4],"data_offsets":[0,4])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data_offsets that do not fit its dtype and shape"},
      {one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0, corrupt,
       "the safetensors header gives the tensor \"a\" a shape whose size does not fit 64 bits"},
      {one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), 0, corrupt,
       "the safetensors header gives the tensor \"a\" a shape whose size does not fit 64 bits"},
      // All tensors together
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[1,5])"), 5, corrupt,
       "the safetensors header places the tensor \"a\" at 1, where the tensors before it reach 0"},
      {"{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", 9, corrupt,
       "the safetensors header places the tensor \"b\" at 5, where the tensors before it reach 4"},
      {"{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7, corrupt,
       "the safetensors header places the tensor \"b\" at 3, where the tensors before it reach 4"},
      {"{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, corrupt,
       "the safetensors header places the tensor \"b\" at 0, where the tensors before it reach 4"},
      {one(R"("dtype":"U8","shape":[4],"data_offsets":[18446744073709551612,18446744073709551616])"), 4, corrupt,
       "the safetensors header gives the tensor \"a\" data_offsets that are not whole numbers"},
      {"{" + a + "}", 5, corrupt, "the safetensors header assigns the last 1 byte to no tensor"},
      {"{}", 1, corrupt, "the safetensors header assigns the last 1 byte to no tensor"},
      {"{" + a + "}", 3, incomplete, "the file is cut short: its tensors have 4 bytes, but only 3 are present"},
  };
  for (const Row& row : rows) {
    INFO(row.json.substr(0, 200));
    const std::string prefix = with_length(row.json);
    const auto header = decode_safetensors_header(prefix, prefix.size() + row.data_bytes);
    CHECK(header.code() == row.code);
    INFO(header.status().message());
    CHECK(header.status().message().rfind(row.sentence, 0) == 0);
  }
}

TEST_CASE("wrong_safetensors_lengths_are_refused_before_anything_is_read") {
  const auto length = [](std::uint64_t value) {
    std::string text(8, '\0');
    for (int i = 0; i < 8; ++i) text[i] = static_cast<char>(value >> (8 * i) & 0xff);
    return text;
  };
  for (std::size_t bytes = 0; bytes < 8; ++bytes) {
    CHECK(decode_safetensors_header(std::string(bytes, '\0'), bytes).code() == StatusCode::incomplete);
  }
  CHECK(decode_safetensors_header(length(0), 8).code() == StatusCode::corrupt);
  CHECK(decode_safetensors_header(length(3) + "{}", 10).code() == StatusCode::incomplete);
  CHECK(decode_safetensors_header(length(100'000'001), 200'000'000).code() == StatusCode::corrupt);
  CHECK(decode_safetensors_header(length(~std::uint64_t{0}), ~std::uint64_t{0}).code() == StatusCode::corrupt);
  CHECK(decode_safetensors_header(length(~std::uint64_t{7}), ~std::uint64_t{0}).code() == StatusCode::corrupt);
  // A caller that passes less than the header.
  CHECK(decode_safetensors_header(length(4) + "{}", 100).code() == StatusCode::invalid);
}

TEST_CASE("text_of_a_header_is_quoted_short_and_without_control_characters") {
  const std::string dtype = "X\\u001b[31m" + std::string(5 << 20, 'x');
  const std::string prefix = with_length("{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":[1],\"data_offsets\":[0,1]}}");
  const auto header = decode_safetensors_header(prefix, prefix.size() + 1);
  CHECK(header.code() == StatusCode::unsupported);
  CHECK(header.status().message().size() < 500);
  CHECK(header.status().message().find('\x1b') == std::string::npos);
}
