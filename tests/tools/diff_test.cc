#include <limits>
#include <map>

#include "runs.h"

using namespace holdfast::storage;

namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace

TEST_CASE("versions_with_the_same_content_are_equal_in_any_session") {
  ScratchFolder scratch;
  make_run(scratch / "one", {10, 20});
  make_run(scratch / "two", {10, 20}, "bbbbbbbb");
  const std::string one = (scratch / "one").string(), two = (scratch / "two").string();
  const Said equal = holdfast_command({"diff", one, two});
  CHECK(equal.code == 0);
  CHECK(equal.out.find("equal: all 2 tensors are bit-identical, and so are position and values\n") !=
        std::string::npos);
  CHECK(holdfast_command({"diff", one, two, "--bytes"}).code == 0);

  const Said different = holdfast_command({"diff", one, "2", "3", "--json"});
  CHECK(different.code == 1);
  const auto found = different.json();
  REQUIRE(found["tensors"].size() == 2);
  CHECK(found["tensors"][1]["name"] == "w");
  CHECK(found["tensors"][1]["max_abs"] == 10.0);
  CHECK(found["tensors"][1]["differing"] == 64);
  CHECK(found["values"][0] == nlohmann::json({{"path", "/position/step"}, {"a", 10}, {"b", 20}}));
}

TEST_CASE("tensors_with_equal_digests_are_read_only_with_bytes") {
  ScratchFolder scratch;
  make_run(scratch / "one", {10});
  make_run(scratch / "two", {10}, "bbbbbbbb");
  flip_byte(scratch / "two/data/000002-bbbbbbbb.r0of1.safetensors", 4096);
  const std::string one = (scratch / "one").string(), two = (scratch / "two").string();
  CHECK(holdfast_command({"diff", one, two}).code == 0);
  CHECK(holdfast_command({"diff", one, two, "--bytes"}).code == 1);
}

TEST_CASE("diff_measures_what_differs_and_where") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  ScratchFolder scratch;
  const std::uint32_t nan = bits_of(kNan);
  const auto write = [&](const std::string& name, std::vector<Named> tensors) {
    write_safetensors(scratch / name, tensors);
    return (scratch / name).string();
  };
  const std::string a =
      write("a.safetensors", {{"nan", Dtype::f32, {2}, bytes_of(std::vector<float>{kNan, 1})},
                              {"zero", Dtype::f32, {1}, bytes_of(std::vector<float>{0.0F})},
                              {"mixed", Dtype::f32, {2, 3}, bytes_of(std::vector<float>{1, 2, 3, 4, 5, kNan})},
                              {"wide", Dtype::i64, {1}, bytes_of(std::vector<std::int64_t>{1LL << 60})},
                              {"long", Dtype::u8, {2, 100'000}, std::string(200'000, 'a')},
                              {"shape", Dtype::u8, {4}, "abcd"},
                              {"type", Dtype::f32, {2}, bytes_of(std::vector<float>{1.5F, 2})},
                              {"gone", Dtype::u8, {1}, "x"}});
  const std::string b =
      write("b.safetensors", {{"nan", Dtype::f32, {2}, bytes_of(std::vector<std::uint32_t>{nan, bits_of(1)})},
                              {"zero", Dtype::f32, {1}, bytes_of(std::vector<float>{-0.0F})},
                              {"mixed", Dtype::f32, {2, 3}, bytes_of(std::vector<float>{1.5F, 2, 7, 4, 5.5F, 6})},
                              {"wide", Dtype::i64, {1}, bytes_of(std::vector<std::int64_t>{(1LL << 60) + 1})},
                              {"long", Dtype::u8, {2, 100'000}, std::string(199'999, 'a') + 'c'},
                              {"shape", Dtype::u8, {2, 2}, "abcd"},
                              {"type", Dtype::f16, {2}, bytes_of(std::vector<std::uint16_t>{0x3E00, 0x4200})},
                              {"new", Dtype::u8, {1}, "x"}});
  const Said said = holdfast_command({"diff", a, b, "--json"});
  INFO(said.out);
  CHECK(said.code == 1);
  const auto found = said.json();
  CHECK(found["equal"] == false);
  CHECK(found["equal_tensors"] == 1);
  CHECK(found["only_in_a"] == nlohmann::json({"gone"}));
  CHECK(found["only_in_b"] == nlohmann::json({"new"}));
  CHECK(found["values_compared"] == false);
  std::map<std::string, nlohmann::json> by_name;
  for (const auto& tensor : found["tensors"]) by_name[tensor["name"]] = tensor;
  CHECK(by_name.size() == 6);
  CHECK(by_name["zero"]["differing"] == 1);
  CHECK(by_name["zero"]["max_abs"] == 0.0);
  CHECK(by_name["mixed"]["differing"] == 4);
  CHECK(by_name["mixed"]["nan_on_one_side"] == 1);
  CHECK(by_name["mixed"]["max_abs"] == 4.0);
  CHECK(by_name["mixed"]["max_abs_at"] == nlohmann::json({0, 2}));
  CHECK(by_name["wide"]["max_abs"] == 1.0);
  CHECK(by_name["long"]["max_abs"] == 2.0);  // in its second piece
  CHECK(by_name["long"]["max_abs_at"] == nlohmann::json({1, 99'999}));
  CHECK(by_name["shape"]["max_abs"] == nullptr);
  CHECK(by_name["type"]["max_abs"] == 1.0);
  CHECK(by_name["type"]["b"]["dtype"] == "F16");
  CHECK(holdfast_command({"diff", a, a}).code == 0);
}

TEST_CASE("a_version_equals_its_own_payload_file") {
  ScratchFolder scratch;
  make_run(scratch / "one", {10});
  const std::string payload = (scratch / "one/data/000002-aaaaaaaa.r0of1.safetensors").string();
  CHECK(holdfast_command({"diff", (scratch / "one").string(), payload}).code == 0);
}

TEST_CASE("diff_compares_values_and_ties") {
  ScratchFolder scratch;
  const auto save = [&](const std::string& name, const nlohmann::json& values,
                        std::map<std::string, std::string> tied) {
    const auto store = open_file_store(scratch / name);
    auto session = run_fixture::open_run(*store);
    auto request = run_fixture::version(1);
    request.values = values;
    request.tied = std::move(tied);
    REQUIRE(session->save(request).ok());
    return (scratch / name).string();
  };
  const std::string a = save("a", {{"lr", 0.1}, {"a/b", {{"n", 1}}}}, {{"head", "w"}});
  const std::string b = save("b", {{"lr", 0.2}, {"a/b", {{"n", 1}, {"m", nullptr}}}}, {{"head", "b"}});
  const auto found = holdfast_command({"diff", a, b, "--json"}).json();
  CHECK(found["values"] == nlohmann::json::parse(R"([{"path":"/tied/head","a":"w","b":"b"},
      {"path":"/values/a~1b/m","b":null}, {"path":"/values/lr","a":0.1,"b":0.2}])"));
  CHECK(found["tensors"].size() == 1);
}

TEST_CASE("a_diff_of_an_unreadable_version_is_an_error") {
  ScratchFolder scratch;
  make_run(scratch / "one", {10});
  const std::string one = (scratch / "one").string();
  CHECK(holdfast_command({"diff", one, one + "@9"}).code == 3);
  CHECK(holdfast_command({"diff", one}).code == 2);
  boost::filesystem::remove(scratch / "one/data/000002-aaaaaaaa.r0of1.safetensors");
  const Said said = holdfast_command({"diff", one + "@2", one + "@2"});
  CHECK(said.code == 3);
  CHECK(said.err.find("is missing") != std::string::npos);
}
