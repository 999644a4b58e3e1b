// A manifest's head, read without its tensors and values, and manifests in the layout of other writers.
#include "holdfast/storage/formats/manifest_head.h"

#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "sample_manifest.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;
using namespace sample_manifest;

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
