#include <cmath>
#include <limits>
#include <set>

#include "runs.h"

using namespace holdfast::storage;

namespace {

nlohmann::json tensor_in(const nlohmann::json& shown, const std::string& name) {
  for (const auto& tensor : shown["tensors"]) {
    if (tensor["name"] == name) return tensor;
  }
  return nullptr;
}

bool is_close(double value, double expected) { return std::abs(value - expected) <= 1e-15 * std::abs(expected); }

}  // namespace

TEST_CASE("show_takes_a_version_in_every_spelling") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  const std::string run = (scratch / "mnist").string();
  const std::vector<std::pair<std::vector<std::string>, int>> spellings = {
      {{run}, 20},
      {{run + "/"}, 20},
      {{run + "/2"}, 10},
      {{run + "@2"}, 10},
      {{run, "2"}, 10},
      {{run + "@2-aaaa"}, 10},
      {{run, "000002-aaaaaaaa"}, 10},
      {{run + "/journal/000002-aaaaaaaa.save.json"}, 10}};
  for (const auto& [words, step] : spellings) {
    std::vector<std::string> arguments = {"show", "--json"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    const Said said = holdfast_command(arguments);
    INFO(words.back() << said.out);
    REQUIRE(said.code == 0);
    CHECK(said.json()["step"] == step);
  }
}

TEST_CASE("show_lists_the_contents_of_a_version") {
  ScratchFolder scratch;
  {
    const auto store = open_file_store(scratch / "mnist");
    auto session = run_fixture::open_run(*store);
    auto request = run_fixture::version(10);
    request.metrics = {{"loss", 0.5}};
    request.values = {{"loader", {{"cursor", 640}}}, {"long", std::string(5000, 'x')}};
    request.tied = {{"head", "w"}};
    request.made_by["environment"] = {{"world_size", 2}};
    REQUIRE(session->save(request).ok());
  }
  const std::string run = (scratch / "mnist").string();
  const auto shown = holdfast_command({"show", run, "--json"}).json();
  CHECK(shown["kind"] == "version");
  CHECK(shown["metrics"]["loss"] == 0.5);
  CHECK(shown["values"]["loader"]["cursor"] == 640);
  CHECK(tensor_in(shown, "w")["dtype"] == "F32");
  CHECK(tensor_in(shown, "w")["shape"] == nlohmann::json({8, 8}));
  CHECK(tensor_in(shown, "head")["tied_to"] == "w");
  CHECK_FALSE(tensor_in(shown, "w").contains("stats"));
  const std::string text = holdfast_command({"show", run}).out;
  CHECK(shown["world_size"] == 2);  // that of the run; one rank writes for all
  CHECK(text.find(", 2 ranks\n") != std::string::npos);
  CHECK(text.find("head    F32    [8, 8]      -  tied to w\n") != std::string::npos);
  CHECK(text.find("(5,002 characters)") != std::string::npos);
  const auto filtered = holdfast_command({"show", run, "--json", "--filter", "h*"}).json();
  CHECK(filtered["tensors"].size() == 1);
  const Said none = holdfast_command({"show", run, "--filter", "haed"});
  CHECK(none.code == 3);
  CHECK(none.err == "holdfast: no tensor of version 2 of run mnist matches \"haed\"; did you mean \"head\"?\n");
}

TEST_CASE("statistics_are_right_for_every_dtype") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  using U8 = std::vector<std::uint8_t>;
  using U16 = std::vector<std::uint16_t>;
  struct Expected {
    Named tensor;
    nlohmann::json min, max, mean;
    int nan = 0;
  };
  const std::vector<Expected> cases = {
      {{"bool", Dtype::boolean, {4}, bytes_of(U8{0, 1, 1, 1})}, 0, 1, 0.75},
      {{"u8", Dtype::u8, {2}, bytes_of(U8{3, 255})}, 3, 255, 129.0},
      {{"i8", Dtype::i8, {2}, bytes_of(std::vector<std::int8_t>{-128, 127})}, -128, 127, -0.5},
      {{"u16", Dtype::u16, {2}, bytes_of(U16{1, 65535})}, 1, 65535, 32768.0},
      {{"i16", Dtype::i16, {2}, bytes_of(std::vector<std::int16_t>{-32768, 2})}, -32768, 2, -16383.0},
      {{"u32", Dtype::u32, {2}, bytes_of(std::vector<std::uint32_t>{4294967295U, 1})}, 1, 4294967295U, 2147483648.0},
      {{"i32", Dtype::i32, {2}, bytes_of(std::vector<std::int32_t>{-5, 4})}, -5, 4, -0.5},
      {{"u64", Dtype::u64, {1}, bytes_of(std::vector<std::uint64_t>{18446744073709551615U})},
       18446744073709551615U,
       18446744073709551615U,
       18446744073709551615.0},
      {{"i64", Dtype::i64, {2}, bytes_of(std::vector<std::int64_t>{-9007199254740993, 9007199254740993})},
       -9007199254740993,
       9007199254740993,
       0.0},
      // one, minus two, largest, smallest subnormal, NaN
      {{"f16", Dtype::f16, {5}, bytes_of(U16{0x3C00, 0xC000, 0x7BFF, 0x0001, 0x7E01})},
       -2.0,
       65504.0,
       (65503.0 + 0x1p-24) / 4,
       1},
      {{"f16_inf", Dtype::f16, {2}, bytes_of(U16{0x7C00, 0x3555})}, 0x1.554p-2, "Infinity", "Infinity"},
      {{"bf16", Dtype::bf16, {4}, bytes_of(U16{0x3F80, 0xC000, 0x4049, 0xFFC0})}, -2.0, 3.140625, 2.140625 / 3, 1},
      {{"f32", Dtype::f32, {4}, bytes_of(std::vector<float>{1.5F, kNan, -0.5F, kNan})}, -0.5, 1.5, 0.5, 2},
      {{"f32_inf", Dtype::f32, {2}, bytes_of(std::vector<float>{1, -kInf})}, "-Infinity", 1.0, "-Infinity"},
      {{"f32_nan", Dtype::f32, {1}, bytes_of(std::vector<float>{kNan})}, nullptr, nullptr, nullptr, 1},
      {{"f32_none", Dtype::f32, {0, 3}, ""}, nullptr, nullptr, nullptr},
      // a plain sum would lose the ones
      {{"f64", Dtype::f64, {4}, bytes_of(std::vector<double>{1e100, 1, 1, -1e100})}, -1e100, 1e100, 0.5},
      {{"c64", Dtype::c64, {3}, bytes_of(std::vector<float>{3, 4, 0, -1, kNan, 0})}, 1.0, 5.0, {1.5, 1.5}, 1},
      // largest, smallest subnormal, minus one, infinity aside, NaN
      {{"e5m2", Dtype::f8_e5m2, {4}, bytes_of(U8{0x7B, 0x01, 0xBC, 0x7F})}, -1.0, 57344.0, (57343 + 0x1p-16) / 3, 1},
      {{"e5m2_inf", Dtype::f8_e5m2, {2}, bytes_of(U8{0xFC, 0x3C})}, "-Infinity", 1.0, "-Infinity"},
      {{"e4m3", Dtype::f8_e4m3, {4}, bytes_of(U8{0x7E, 0x01, 0xB8, 0xFF})}, -1.0, 448.0, (447 + 0x1p-9) / 3, 1},
      {{"e8m0", Dtype::f8_e8m0, {4}, bytes_of(U8{127, 128, 126, 0xFF})}, 0.5, 2.0, 3.5 / 3, 1},
      {{"e4m3fnuz", Dtype::f8_e4m3fnuz, {3}, bytes_of(U8{0x7F, 0xC0, 0x80})}, -1.0, 240.0, 119.5, 1},
      {{"e5m2fnuz", Dtype::f8_e5m2fnuz, {3}, bytes_of(U8{0x7F, 0xC0, 0x80})}, -1.0, 57344.0, 28671.5, 1},
  };
  ScratchFolder scratch;
  std::vector<Named> tensors;
  for (const Expected& expected : cases) tensors.push_back(expected.tensor);
  write_safetensors(scratch / "all.safetensors", tensors);
  const Said said = holdfast_command({"show", (scratch / "all.safetensors").string(), "--stats", "--json"});
  INFO(said.out);
  REQUIRE(said.code == 0);
  std::set<std::string> dtypes;
  for (const Expected& expected : cases) {
    const auto tensor = tensor_in(said.json(), expected.tensor.name);
    INFO(tensor.dump());
    dtypes.insert(tensor["dtype"].get<std::string>());
    CHECK(tensor["stats"]["min"] == expected.min);
    CHECK(tensor["stats"]["max"] == expected.max);
    CHECK(tensor["stats"]["nan"] == expected.nan);
    if (expected.mean.is_number()) {
      CHECK(is_close(tensor["stats"]["mean"], expected.mean));
    } else {
      CHECK(tensor["stats"]["mean"] == expected.mean);
    }
  }
  CHECK(dtypes.size() == all_dtypes().size());
}

TEST_CASE("statistics_cover_a_tensor_of_many_pieces") {
  constexpr int kCount = 3'000'000;  // not a multiple of a piece
  std::vector<float> values(kCount, 1.0F);
  values.front() = -7;
  values.back() = 9;
  values[kCount / 2] = std::numeric_limits<float>::quiet_NaN();
  ScratchFolder scratch;
  write_safetensors(scratch / "m.safetensors", {{"w", Dtype::f32, {kCount}, bytes_of(values)}});
  const auto shown = holdfast_command({"show", (scratch / "m.safetensors").string(), "--stats", "--json"}).json();
  const auto stats = tensor_in(shown, "w")["stats"];
  CHECK(stats["min"] == -7.0);
  CHECK(stats["max"] == 9.0);
  CHECK(stats["nan"] == 1);
  CHECK(is_close(stats["mean"], (kCount - 3 + 2) / double(kCount - 1)));
}

TEST_CASE("statistics_cover_a_tensor_stored_in_boxes") {
  // A 4 × 4 matrix in two boxes of two columns and a long one in two rows, each box in its own file, as written by
  // ranks.
  ScratchFolder scratch;
  const path run = scratch / "split";
  make_run(run, {1});
  Manifest manifest = *decode_manifest(content_of(run / "journal/000002-aaaaaaaa.save.json"));
  manifest.uid.seq = 5;
  manifest.world_size = 4;
  manifest.files.clear();
  manifest.tensors.clear();
  int rank = 0;
  const auto add_box = [&](TensorEntry& of, std::vector<std::int64_t> offset, std::vector<std::int64_t> extent,
                           const std::vector<float>& values) {
    const std::string name = payload_name({manifest.uid, rank, 4});
    write_safetensors(run / name, {{of.name, Dtype::f32, extent, bytes_of(values)}});
    const std::string bytes = content_of(run / name);
    manifest.files.push_back({name, bytes.size(), digest_of(bytes), 4096, digest_of(bytes.substr(0, 4096))});
    of.parts.push_back({static_cast<std::size_t>(rank++), 4096, bytes.size(), offset, extent});
  };
  TensorEntry matrix;
  matrix.name = "m";
  matrix.shape = {4, 4};
  for (int half = 0; half < 2; ++half) {
    std::vector<float> values;
    for (int row = 0; row < 4; ++row) {
      for (int column = 2 * half; column < 2 * half + 2; ++column)
        values.push_back(static_cast<float>(4 * row + column));
    }
    add_box(matrix, {0, 2 * half}, {4, 2}, values);
  }
  std::vector<float> whole(16);
  for (int i = 0; i < 16; ++i) whole[static_cast<std::size_t>(i)] = static_cast<float>(i);
  matrix.digest = digest_of(bytes_of(whole));
  manifest.tensors.push_back(matrix);
  constexpr std::int64_t kLong = 300'000;  // more than a piece, so that pieces begin and end inside rows
  TensorEntry rows;
  rows.name = "rows";
  rows.shape = {2, kLong};
  add_box(rows, {0, 0}, {1, kLong}, std::vector<float>(kLong, 1.0F));
  add_box(rows, {1, 0}, {1, kLong}, std::vector<float>(kLong, 2.0F));
  std::vector<float> both(kLong, 1.0F);
  both.resize(2 * kLong, 2.0F);
  rows.digest = digest_of(bytes_of(both));
  manifest.tensors.push_back(rows);
  write_file(run / entry_name(manifest.uid, EntryKind::save), encode(manifest));

  const Said said = holdfast_command({"show", run.string(), "5", "--stats", "--json"});
  INFO(said.out);
  REQUIRE(said.code == 0);
  CHECK(tensor_in(said.json(), "m")["stats"]["mean"] == 7.5);
  CHECK(tensor_in(said.json(), "rows")["stats"]["mean"] == 1.5);
  const Said verified = holdfast_command({"verify", run.string(), "5"});
  INFO(verified.out);
  CHECK(verified.code == 0);
  // In row-major order it equals the plain matrix, element by element.
  write_safetensors(scratch / "plain.safetensors",
                    {{"m", Dtype::f32, {4, 4}, bytes_of(whole)}, {"rows", Dtype::f32, {2, kLong}, bytes_of(both)}});
  CHECK(holdfast_command({"diff", run.string() + "@5", (scratch / "plain.safetensors").string()}).code == 0);
}

TEST_CASE("show_of_ten_gigabytes_reads_no_tensor_bytes") {
  constexpr std::int64_t kCount = 2'684'354'560;  // 10 GiB of float
  ScratchFolder scratch;
  SafetensorsHeader header;
  header.tensors.push_back({"w", Dtype::f32, {kCount}, 0, 0});
  const std::string text = *encode_safetensors_header(header);
  path file = scratch / "big.safetensors";
  std::vector<std::string> arguments;
  SECTION("a plain file") { arguments = {"show", file.string(), "--json"}; }
  SECTION("a version") {
    make_run(scratch / "big", {1});
    Manifest manifest = *decode_manifest(content_of(scratch / "big/journal/000002-aaaaaaaa.save.json"));
    manifest.uid.seq = 5;
    const std::string name = payload_name({manifest.uid, 0, 1});
    file = scratch / "big" / name;
    manifest.files = {{name, text.size() + 4 * kCount, Digest{}, text.size(), digest_of(text)}};
    TensorEntry tensor;
    tensor.name = "w";
    tensor.shape = {kCount};
    tensor.parts.push_back({0, text.size(), text.size() + 4 * kCount, {}, {}});
    manifest.tensors = {tensor};
    write_file(scratch / "big" / entry_name(manifest.uid, EntryKind::save), encode(manifest));
    arguments = {"show", (scratch / "big").string(), "--json"};
  }
  write_file(file, text);
  boost::filesystem::resize_file(file, text.size() + 4 * kCount);  // sparse
  const Said said = holdfast_command(arguments);
  REQUIRE(said.code == 0);
  CHECK(said.json()["tensors"][0]["bytes"] == 4 * kCount);
  CHECK(said.bytes_read > 0);
  CHECK(said.bytes_read < 1'000'000);
  CHECK(said.seconds < 2);
}

TEST_CASE("show_names_the_mistake_in_its_arguments") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  make_run(scratch / "cifar", {1});
  const Running here{.folder = scratch.path().string()};
  const auto error_of = [&](std::vector<std::string> words, int code) {
    words.insert(words.begin(), "show");
    const Said said = holdfast_command(words, here);
    CHECK(said.code == code);
    return said.err;
  };
  CHECK(error_of({"mnist", "7"}, 3) == "holdfast: run mnist: there is no version 7; there are 2-aaaa, 3-aaaa\n");
  CHECK(error_of({"mnist@seven"}, 2).find("is not a version") != std::string::npos);
  CHECK(error_of({"mnits"}, 3) == "holdfast: there is no mnits; did you mean mnist?\n");
  CHECK(error_of({"."}, 2) == "holdfast: . holds several runs; name one of them: cifar, mnist\n");
  CHECK(error_of({"7"}, 3).find("name the run before the number") != std::string::npos);
  CHECK(error_of({}, 2).find("holdfast show --help") != std::string::npos);

  write_file(scratch / "pickle.pt", std::string("PK\x03\x04", 4) + std::string(100, 'x'));
  CHECK(error_of({"pickle.pt"}, 3).find("which holdfast never runs") != std::string::npos);
  const std::string payload = content_of(scratch / "mnist/data/000002-aaaaaaaa.r0of1.safetensors");
  write_file(scratch / "cut.safetensors", payload.substr(0, payload.size() - 1));
  CHECK(error_of({"cut.safetensors"}, 3) ==
        "holdfast: cut.safetensors: the file is cut short: its tensors have 512 bytes, but only 511 are present\n");
  write_file(scratch / "text.txt", "hello, world");
  CHECK(error_of({"text.txt"}, 3).find("holdfast reads runs and safetensors files") != std::string::npos);
}

TEST_CASE("a_name_from_a_file_cannot_control_the_terminal") {
  ScratchFolder scratch;
  write_safetensors(scratch / "evil.safetensors", {{"w\x1b[2J", Dtype::u8, {1}, "x"}});
  const Said said = holdfast_command({"show", (scratch / "evil.safetensors").string()});
  REQUIRE(said.code == 0);
  CHECK(said.out.find('\x1b') == std::string::npos);
  CHECK(said.out.find("w\\x1b[2J") != std::string::npos);
}
