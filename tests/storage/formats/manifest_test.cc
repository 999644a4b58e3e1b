#include "holdfast/storage/formats/manifest.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/storage/formats/manifest_head.h"
#include "storage/sample_version.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;
using sample_version::manifest_of;
using sample_version::uid_of;

namespace {

Digest digest_like(std::uint64_t number) { return {number, ~number}; }

/// A matrix of 2 × 3 floats and a vector of 4 bytes in one file, and a tied name.
Manifest sample() {
  Manifest manifest = manifest_of(uid_of(42));
  manifest.files = {{"data/000042-7f3a9c1e.r0of1.safetensors", 4124, digest_like(1), 4096, digest_like(2)}};
  manifest.tensors = {{"a.bias", Dtype::u8, {4}, digest_like(4), {{0, 4120, 4124, {}, {}}}},
                      {"a.weight", Dtype::f32, {2, 3}, digest_like(3), {{0, 4096, 4120, {}, {}}}}};
  manifest.tied = {{"b.weight", "a.weight"}};
  return manifest;
}

const std::string kText =
    R"({"holdfast":"save","format":1,
"uid":"000042-7f3a9c1e",
"epoch":3,
"parent":"000041-51d0aa02",
"run":"mnist",
"time":"2026-01-31T12:00:00Z",
"reason":"every 500 steps",
"position":{"epoch":2,"samples":64000,"step":1000},
"world_size":1,
"durability":"fsynced",
"metrics":{"loss":0.25},
"values":{"lr":0.001},
"made_by":{"holdfast":"0.1.0"},
"cost":{"bytes":4096,"seconds":0.5},
"needs_features":[],
"files":[
{"name":"data/000042-7f3a9c1e.r0of1.safetensors","bytes":4124,"digest":"0000000000000001fffffffffffffffe","header_bytes":4096,"header_digest":"0000000000000002fffffffffffffffd"}
],
"tensors":{
"a.bias":{"dtype":"U8","shape":[4],"digest":"0000000000000004fffffffffffffffb","parts":[{"file":0,"begin":4120,"end":4124}]},
"a.weight":{"dtype":"F32","shape":[2,3],"digest":"0000000000000003fffffffffffffffc","parts":[{"file":0,"begin":4096,"end":4120}]}
},
"tied":{
"b.weight":"a.weight"
},
"digest":"e3bed6ae9f1e2a475451ba387868100f"}
)";

/// The matrix of sample() as two boxes of one column and of two, in two files of two ranks.
Manifest boxed() {
  Manifest manifest = manifest_of(uid_of(42));
  manifest.world_size = 2;
  manifest.files = {{"data/000042-7f3a9c1e.r0of2.safetensors", 4104, digest_like(1), 4096, digest_like(2)},
                    {"data/000042-7f3a9c1e.r1of2.safetensors", 4112, digest_like(1), 4096, digest_like(2)}};
  manifest.tensors = {
      {"w", Dtype::f32, {2, 3}, digest_like(3), {{0, 4096, 4104, {0, 0}, {2, 1}}, {1, 4096, 4112, {0, 1}, {2, 2}}}}};
  return manifest;
}

void same(const Manifest& a, const Manifest& b) {
  CHECK(a.uid == b.uid);
  CHECK(a.epoch == b.epoch);
  CHECK(a.parent == b.parent);
  CHECK(a.run == b.run);
  CHECK(a.time == b.time);
  CHECK(a.reason == b.reason);
  CHECK(a.position.step == b.position.step);
  CHECK(a.position.epoch == b.position.epoch);
  CHECK(a.position.samples == b.position.samples);
  CHECK(a.world_size == b.world_size);
  CHECK(a.durability == b.durability);
  CHECK(a.metrics == b.metrics);
  CHECK(a.values == b.values);
  CHECK(a.made_by == b.made_by);
  CHECK(a.cost == b.cost);
  CHECK(a.tied == b.tied);
  REQUIRE(a.files.size() == b.files.size());
  for (std::size_t i = 0; i < a.files.size(); ++i) {
    CHECK(a.files[i].name == b.files[i].name);
    CHECK(a.files[i].bytes == b.files[i].bytes);
    CHECK(a.files[i].digest == b.files[i].digest);
    CHECK(a.files[i].header_bytes == b.files[i].header_bytes);
    CHECK(a.files[i].header_digest == b.files[i].header_digest);
  }
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    CHECK(a.tensors[i].name == b.tensors[i].name);
    CHECK(a.tensors[i].dtype == b.tensors[i].dtype);
    CHECK(a.tensors[i].shape == b.tensors[i].shape);
    CHECK(a.tensors[i].digest == b.tensors[i].digest);
    REQUIRE(a.tensors[i].parts.size() == b.tensors[i].parts.size());
    for (std::size_t k = 0; k < a.tensors[i].parts.size(); ++k) {
      const TensorPart &x = a.tensors[i].parts[k], &y = b.tensors[i].parts[k];
      CHECK(x.file == y.file);
      CHECK(x.begin == y.begin);
      CHECK(x.end == y.end);
      CHECK(x.offset == y.offset);
      CHECK(x.extent == y.extent);
    }
  }
}

}  // namespace

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

TEST_CASE("manifests_that_do_not_follow_the_format_are_refused_with_a_sentence") {
  struct Row {
    const char* from;
    const char* to;
    const char* sentence;  // its beginning
    StatusCode code = StatusCode::corrupt;
  };
  const Row rows[] = {
      {"\"format\":1", "\"format\":2", "the manifest has format 2, this Holdfast reads up to 1",
       StatusCode::unsupported},
      {"\"needs_features\":[]", "\"needs_features\":[\"hfz\"]", "the manifest needs the feature \"hfz\"",
       StatusCode::unsupported},
      {"\"uid\":\"000042-7f3a9c1e\"", "\"uid\":\"42\"",
       "the manifest has a \"uid\" that is not a number and a session"},
      {"\"run\":\"mnist\"", "\"run\":[]", "the manifest has a \"run\" that is not a string"},
      {"\"step\":1000", "\"step\":-1", "the manifest's position has a \"step\" that is not a whole number"},
      {",\"step\":1000", "", "the manifest's position has no \"step\""},
      {"\"world_size\":1", "\"world_size\":0", "the manifest has an impossible \"world_size\""},
      {"\"world_size\":1", "\"world_size\":2147483648", "the manifest has an impossible \"world_size\""},
      {"\"world_size\":1", "\"world_size\":2",
       "the manifest lists \"data/000042-7f3a9c1e.r0of1.safetensors\", which is not of a world of 2"},
      {"{\"loss\":0.25}", "0.25", "the manifest has a \"metrics\" that is not an object"},
      {"{\"lr\":0.001}", "null", "the manifest has a \"values\" that is not an object"},
      // files
      {"\"files\":[", "\"files_\":[", "the manifest has no list \"files\""},
      {"\"files\":[\n", "\"files\":[7,", "the manifest lists a file that is not an object"},
      {"data/000042-7f3a9c1e.r0of1.safetensors", "data/../../etc/passwd",
       "the manifest's file has the name \"data/../../etc/passwd\", which is not the name of a payload"},
      {"data/000042-7f3a9c1e.r0of1.safetensors", "/etc/passwd", "the manifest's file has the name \"/etc/passwd\""},
      {"\"bytes\":4124", "\"bytes\":\"4124\"", "the manifest's file has a \"bytes\" that is not a whole number"},
      {"\"header_bytes\":4096", "\"header_bytes\":4125", "the manifest's file \"data/"},
      {"0000000000000001fffffffffffffffe", "1",
       "the manifest's file has a \"digest\" that is not 32 hexadecimal digits"},
      {"\"files\":[\n",
       "\"files\":[{\"name\":\"data/000042-7f3a9c1e.r0of1.safetensors\",\"bytes\":4124,\"digest\":"
       "\"00000000000000000000000000000000\",\"header_bytes\":4096,\"header_digest\":"
       "\"00000000000000000000000000000000\"},",
       "the manifest lists the file \"data/000042-7f3a9c1e.r0of1.safetensors\" twice"},
      // tensors
      {"\"tensors\":{", "\"tensors_\":{", "the manifest has no object \"tensors\""},
      {"\"tensors\":{\n", "\"tensors\":{\"x\":1,", "the manifest's tensor \"x\" is not an object"},
      {"\"a.bias\":", "\"a.weight\":", "the manifest has the key \"a.weight\" twice"},
      {"\"U8\"", "\"F4\"", "the manifest's tensor \"a.bias\" has the dtype \"F4\", which this Holdfast does not know",
       StatusCode::unsupported},
      {"\"U8\"", "8", "the manifest's tensor \"a.bias\" has a \"dtype\" that is not a string"},
      {"\"shape\":[4]", "\"shape\":4", "the manifest's tensor \"a.bias\" has a \"shape\" that is not a list"},
      {"\"shape\":[4]", "\"shape\":[-4]", "the manifest's tensor \"a.bias\" has a \"shape\" that does not list whole"},
      {"\"shape\":[4]", "\"shape\":[9223372036854775808]",
       "the manifest's tensor \"a.bias\" has a \"shape\" that does not"},
      {"\"shape\":[4]", "\"shape\":[4611686018427387904,4]", "the manifest's tensor \"a.bias\" has a shape whose size"},
      {"\"shape\":[4]", "\"shape\":[5]",
       "the manifest's tensor \"a.bias\" has a part whose length is not that of its box"},
      {"\"shape\":[2,3]", "\"shape\":[2,6]",
       "the manifest's tensor \"a.weight\" has a part whose length is not that of"},
      {"\"begin\":4120,\"end\":4124}]", "\"begin\":4120,\"end\":4124}],\"parts_\":[]", nullptr, StatusCode::ok},
      {"[{\"file\":0,\"begin\":4120,\"end\":4124}]", "[]", "the manifest's tensor \"a.bias\" has no part"},
      {"[{\"file\":0,\"begin\":4120,\"end\":4124}]", "{}", "the manifest's tensor \"a.bias\" has no list \"parts\""},
      {"[{\"file\":0,\"begin\":4120,\"end\":4124}]", "[0]",
       "the manifest's tensor \"a.bias\" has a part that is not an"},
      {"{\"file\":0,\"begin\":4120", "{\"file\":1,\"begin\":4120",
       "the manifest's tensor \"a.bias\" has a part in file 1, which is not listed"},
      {"\"begin\":4120,\"end\":4124", "\"begin\":4121,\"end\":4125",
       "the manifest's tensor \"a.bias\" has a part at bytes 4121 to 4125, outside the data of"},
      {"\"begin\":4120,\"end\":4124", "\"begin\":4092,\"end\":4096",
       "the manifest's tensor \"a.bias\" has a part at bytes 4092 to 4096, outside the data of"},
      {"\"begin\":4120,\"end\":4124", "\"begin\":4124,\"end\":4120",
       "the manifest's tensor \"a.bias\" has a part at bytes 4124 to 4120, outside the data of"},
      {"\"begin\":4120,\"end\":4124", "\"begin\":18446744073709551612,\"end\":0",
       "the manifest's tensor \"a.bias\" has a part at bytes 18446744073709551612 to 0, outside the data of"},
      {"\"begin\":4120,\"end\":4124", "\"begin\":4100,\"end\":4104", "the manifest gives bytes of \"data/"},
      {"\"bytes\":4124", "\"bytes\":4125", "the manifest leaves bytes of \"data/"},
      {"\"header_bytes\":4096", "\"header_bytes\":4095", "the manifest leaves bytes of \"data/"},
      {"\"end\":4124}", "\"end\":4124,\"offset\":[0]}", "the manifest's tensor \"a.bias\"'s part has no \"extent\""},
      // ties
      {"\"tied\":{", "\"tied_\":{", "the manifest has no object \"tied\""},
      {"\"b.weight\":\"a.weight\"", "\"b.weight\":\"c\"",
       "the manifest ties \"b.weight\" to a tensor that is not stored"},
      {"\"b.weight\":\"a.weight\"", "\"b.weight\":1", "the manifest ties \"b.weight\" to a tensor that is not stored"},
      {"\"b.weight\":\"a.weight\"", "\"a.bias\":\"a.weight\"", "the manifest ties \"a.bias\", which is stored itself"},
      {"\"b.weight\":\"a.weight\"", "\"b\":\"a.weight\",\"c\":\"b\"",
       "the manifest ties \"c\" to a tensor that is not stored"},
  };
  for (const Row& row : rows) {
    INFO(row.from << " -> " << row.to);
    const auto manifest = decode_manifest(resealed(kText, row.from, row.to));
    CHECK(manifest.code() == row.code);
    INFO(manifest.status().message());
    if (row.sentence) CHECK(manifest.status().message().rfind(row.sentence, 0) == 0);
  }
}

TEST_CASE("boxes_must_tile_their_tensor") {
  struct Row {
    const char* from;
    const char* to;
    const char* sentence;
  };
  const std::string text = encode(boxed());
  const Row rows[] = {
      {"\"offset\":[0,1],\"extent\":[2,2]", "\"offset\":[0,0],\"extent\":[2,2]", "has parts that overlap"},
      {"\"offset\":[0,1],\"extent\":[2,2]", "\"offset\":[0,2],\"extent\":[2,2]", "has a box outside its shape"},
      {"\"offset\":[0,1],\"extent\":[2,2]", "\"offset\":[9223372036854775807,1],\"extent\":[2,2]",
       "has a box outside its shape"},
      {"\"offset\":[0,1],\"extent\":[2,2]", "\"offset\":[0],\"extent\":[4]", "has a box with a number of dimensions"},
      {"\"offset\":[0,1],\"extent\":[2,2]", "\"offset\":[0,1],\"extent\":[2,1]", "has a part whose length is not that"},
      {",\"offset\":[0,1],\"extent\":[2,2]", "", "has a part whose length is not that of its box"},
      {"\"shape\":[2,3]", "\"shape\":[2,4]", "has parts that do not add up to its shape"},
      {",{\"file\":1,\"begin\":4096,\"end\":4112,\"offset\":[0,1],\"extent\":[2,2]}", "",
       "has parts that do not add up"},
  };
  for (const Row& row : rows) {
    INFO(row.from << " -> " << row.to);
    const auto manifest = decode_manifest(resealed(text, row.from, row.to));
    REQUIRE_FALSE(manifest);
    CHECK(manifest.code() == StatusCode::corrupt);
    INFO(manifest.status().message());
    CHECK(manifest.status().message().rfind(std::string("the manifest's tensor \"w\" ") + row.sentence, 0) == 0);
  }
}

TEST_CASE("a_manifest_may_use_a_part_of_an_older_versions_file") {
  Manifest manifest = sample();
  manifest.files[0].name = "data/000041-51d0aa02.r0of4.safetensors";
  manifest.files[0].bytes = 5000;
  CHECK(decode_manifest(encode(manifest)));
}

// A manifest is refused when it is written if and only if it is refused when it is read.
TEST_CASE("a_manifest_that_would_not_open_is_never_encoded") {
  const auto nested = [](int levels) {
    nlohmann::json value = 1;
    for (int i = 0; i < levels; ++i) value = nlohmann::json::array({value});
    return value;
  };
  const auto with = [](const std::function<void(Manifest&)>& change) {
    Manifest manifest = sample();
    change(manifest);
    return manifest;
  };
  using M = Manifest&;
  const std::vector<std::pair<std::string, Manifest>> manifests = {
      {"", sample()},
      {"", boxed()},
      {"", with([&](M m) { m.values["deep"] = nested(62); })},
      {"the value \"deep\" nests deeper than the 64 levels", with([&](M m) { m.values["deep"] = nested(63); })},
      {"\"metrics\" nests deeper", with([&](M m) { m.metrics["deep"] = nested(63); })},
      {"\"made_by\" nests deeper", with([&](M m) { m.made_by["deep"] = nested(63); })},
      {"", with([&](M m) {
         m.values["bytes"] = nlohmann::json::binary({1, 2, 3});
       })},
      {"", with([&](M m) {
         m.values["latin"] = {{"\xe4", 1}};
       })},
      {"the value \"latin\" has two keys", with([&](M m) {
         m.values["latin"] = {{"\xe4", 1}, {"\xf6", 2}};
       })},
      {"the value \"text\" is the result of a failed json::parse",
       with([&](M m) { m.values["text"] = nlohmann::json(nlohmann::json::value_t::discarded); })},
      {"ties \"a.bias\", which is stored itself", with([&](M m) { m.tied["a.bias"] = "a.weight"; })},
      {"ties \"b.bias\" to a tensor that is not stored", with([&](M m) { m.tied["b.bias"] = "c"; })},
      {"is listed twice", with([&](M m) { m.tensors.insert(m.tensors.begin(), m.tensors.front()); })},
      {"has no part", with([&](M m) { m.tensors[0].parts.clear(); })},
      {"leaves bytes of", with([&](M m) { m.files[0].bytes += 1; })},
      {"has a header of 100000009 bytes, more than the 100000008", with([&](M m) {
         m.files[0].header_bytes = 100'000'009;
         m.files[0].bytes = m.files[0].header_bytes + 28;
         for (TensorEntry& tensor : m.tensors) {
           tensor.parts[0].begin += 100'000'009 - 4096;
           tensor.parts[0].end += 100'000'009 - 4096;
         }
       })},
      {"which is not the name of a payload", with([&](M m) { m.files[0].name = "data/../x.safetensors"; })},
  };
  for (const auto& [problem, manifest] : manifests) {
    INFO(problem);
    const auto text = encode_checked(manifest);
    INFO(text.status().message());
    CHECK(text.ok() == problem.empty());
    if (!text) {
      CHECK(text.code() == StatusCode::invalid);
      CHECK(text.status().message().find(problem) != std::string::npos);
    }
    if (!manifest.values.contains("text")) CHECK(decode_manifest(encode(manifest)).ok() == problem.empty());
  }
}

TEST_CASE("a_manifest_above_the_readers_limit_is_refused_with_the_largest_values_and_the_remedy") {
  Manifest manifest = sample();
  manifest.values = {{"replay", std::string(3 << 20, 'x')}, {"log", std::string(1 << 20, 'x')}, {"lr", 0.1}, {"n", 1}};
  const std::uint64_t bytes = encode(manifest).size();
  CHECK(encode_checked(manifest, bytes).ok());
  const auto refused = encode_checked(manifest, bytes - 1);
  REQUIRE(refused.code() == StatusCode::invalid);
  CHECK(refused.status().message().find("the largest are \"replay\" (3 MiB), \"log\" (1 MiB), ") != std::string::npos);
  CHECK(refused.status().message().find("track large data as a tensor") != std::string::npos);
}

namespace {

/// sample() with unusual names, values and counts of non-finite numbers.
Manifest awkward() {
  Manifest manifest = sample();
  manifest.tensors[0].non_finite = 3;
  manifest.non_finite = 3;
  manifest.tensors[0].name = "a\"\\\n.bias \\";
  manifest.tensors[1].name = "a.größe\\";
  manifest.tied = {{"b", "a.größe\\"}};
  manifest.values = {
      {"text", "}],\"tensors\":{\n\"x\":{\n},"}, {"tensors", {{"a", 1}}}, {"values", nlohmann::json::array({1})}};
  return manifest;
}

/// The content of `text` in the layout of another writer.
std::string laid_out(const std::string& text, int indent) {
  nlohmann::json object = nlohmann::json::parse(text);
  object.erase("digest");
  const std::string body = object.dump(indent);
  return sealed(body.substr(0, body.rfind('}')) + ",\n");
}

}  // namespace

TEST_CASE("a_manifest_reads_the_same_however_it_is_laid_out") {
  Manifest empty = sample();
  empty.files.clear();
  empty.tensors.clear();
  empty.tied.clear();
  for (const Manifest& manifest : {sample(), boxed(), awkward(), empty}) {
    const std::string text = encode(manifest);
    for (const std::string& one : {text, laid_out(text, -1), laid_out(text, 0), laid_out(text, 2)}) {
      INFO(one);
      const auto decoded = decode_manifest(one);
      REQUIRE(decoded);
      same(*decoded, manifest);
      const auto head = decode_manifest_head(one);
      REQUIRE(head);
      CHECK(head->tensors == manifest.tensors.size());
      CHECK(head->manifest.tensors.empty());
      CHECK(head->manifest.values.is_null());
      Manifest rest = head->manifest;
      rest.tensors = manifest.tensors;
      rest.values = manifest.values;
      rest.tied = manifest.tied;
      same(rest, manifest);
    }
  }
}

TEST_CASE("what_looks_like_a_manifests_tensors_within_its_values_is_not_taken_for_them") {
  const std::string values = "\"values\":{\"lr\":0.001}";
  const std::string line = R"("w":{"dtype":"U8","shape":[1],"digest":"00000000000000000000000000000000","parts":[]})";
  const std::string nested =
      resealed(encode(sample()), values, "\"values\":{\n\"tensors\":{\n" + line + "\n},\n\"values\":{},\n\"x\":1}");
  REQUIRE(decode_manifest(nested));
  same(*decode_manifest(nested), *decode_manifest(laid_out(nested, -1)));
  CHECK(decode_manifest(nested)->values.at("tensors").at("w").at("dtype") == "U8");
  CHECK(decode_manifest_head(nested)->tensors == 2);

  const std::string beside = resealed(encode(sample()), values, values + ",\"non_finite\":7");
  CHECK(decode_manifest_head(beside)->manifest.non_finite == 7);
}

TEST_CASE("a_manifests_head_is_refused_with_the_sentence_that_the_whole_is_refused_with") {
  const std::string text = encode(sample());
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"\"epoch\":3", "\"epoch\":-3"},
                                                                                 {"\"files\":[", "\"files\":[7,"},
                                                                                 {"\"format\":1", "\"format\":2"},
                                                                                 {"data/000042", "/etc/000042"}}) {
    const std::string other = resealed(text, from, to);
    INFO(from);
    REQUIRE_FALSE(decode_manifest_head(other));
    CHECK(decode_manifest_head(other).status().message() == decode_manifest(other).status().message());
  }
  CHECK(decode_manifest_head(text + "\n").code() == StatusCode::corrupt);
  CHECK(decode_manifest_head("").code() == StatusCode::corrupt);
}
