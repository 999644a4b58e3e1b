// Manifests that break the format: refused when they are read, and never written.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/storage/formats/manifest.h"
#include "sample_manifest.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;
using namespace sample_manifest;

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
