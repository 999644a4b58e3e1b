#include <sys/stat.h>

#include "runs.h"

using namespace holdfast::storage;

TEST_CASE("verify_reports_an_intact_version_and_ls_shows_the_result") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  const std::string run = (scratch / "mnist").string();
  const Said said = holdfast_command({"verify", run});
  CHECK(said.code == 0);
  CHECK(said.out.find("version 3 of run mnist: ok, 2 tensors and ") == 0);
  CHECK(said.err.empty());
  const auto verified_of = [&](int which) {
    return holdfast_command({"ls", run, "--json"}).json()["versions"][which]["verified"];
  };
  CHECK(verified_of(0) == nullptr);
  CHECK(verified_of(1)["ok"] == true);
  SECTION("one after the other") {
    CHECK(holdfast_command({"verify", run, "2"}).code == 0);
    CHECK(verified_of(0)["ok"] == true);
    CHECK(verified_of(1)["ok"] == true);
  }
  SECTION("all of them") {
    CHECK(holdfast_command({"verify", run, "--all"}).code == 0);
    CHECK(verified_of(0)["ok"] == true);
  }
  SECTION("a hint counts only for the manifest that was verified") {
    const path manifest = scratch / "mnist/journal/000003-aaaaaaaa.save.json";
    auto changed = decode_manifest(content_of(manifest));
    REQUIRE(changed.ok());
    changed->reason = "another one";
    write_file(manifest, encode(*changed));
    CHECK(verified_of(1) == nullptr);
  }
  SECTION("a hint may be missing or torn") {
    write_file(scratch / "mnist/hints/verified.json", "{\"versions\": {\"0000");
    CHECK(verified_of(1) == nullptr);
    CHECK(holdfast_command({"verify", run}).code == 0);
    CHECK(verified_of(1)["ok"] == true);
  }
}

TEST_CASE("verify_names_the_file_the_tensor_and_its_bytes") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  const std::string run = (scratch / "mnist").string();
  const std::string name = "data/000003-aaaaaaaa.r0of1.safetensors";
  const auto finding_of = [&](std::size_t count) {
    const Said said = holdfast_command({"verify", run, "--json"});
    INFO(said.out);
    CHECK(said.code == 1);
    const auto version = said.json()["versions"][0];
    CHECK(version["ok"] == false);
    REQUIRE(version["findings"].size() == count);
    return version["findings"][0];
  };
  SECTION("a flipped bit in a tensor") {
    flip_byte(scratch / "mnist" / name, 4096 + 300);
    const auto finding = finding_of(1);
    CHECK(finding["file"] == name);
    CHECK(finding["tensor"] == "w");
    CHECK(finding["begin"] == 4352);
    CHECK(finding["end"] == 4608);
    const std::string text = holdfast_command({"verify", run}).out;
    CHECK(text.find("  " + name + ", tensor \"w\", bytes 4352 to 4608: the tensor does not match its digest\n") !=
          std::string::npos);
    const auto listed = holdfast_command({"ls", run, "--json"}).json();
    CHECK(listed["versions"][1]["state"] == "corrupt");
    CHECK(listed["next_start"]["version"] == "000002-aaaaaaaa");
  }
  SECTION("a flipped bit in the header") {
    flip_byte(scratch / "mnist" / name, 20);
    const auto finding = finding_of(2);
    CHECK(finding["message"] == "the header does not match its digest");
    CHECK(finding["end"] == 4096);
  }
  SECTION("a short file") {
    boost::filesystem::resize_file(scratch / "mnist" / name, 4400);
    const auto finding = finding_of(1);
    CHECK(finding["code"] == "incomplete");
    CHECK(finding["begin"] == 4400);
    CHECK(finding["message"] == "the file has 4400 bytes instead of 4608; 1 tensor in it is lost: \"w\"");
  }
  SECTION("a missing file is one line, however many tensors were in it") {
    boost::filesystem::remove(scratch / "mnist" / name);
    const auto finding = finding_of(1);
    CHECK(finding["tensor"] == nullptr);
    CHECK(finding["message"] == "the file is missing; 2 tensors in it are lost: \"b\", \"w\"");
  }
  SECTION("a torn manifest") {
    const path manifest = scratch / "mnist/journal/000003-aaaaaaaa.save.json";
    write_file(manifest, content_of(manifest).substr(0, 200));
    CHECK(finding_of(1)["file"] == "journal/000003-aaaaaaaa.save.json");
  }
  SECTION("among all versions") {
    flip_byte(scratch / "mnist/data/000002-aaaaaaaa.r0of1.safetensors", 4100);
    CHECK(holdfast_command({"verify", run}).code == 0);
    const Said said = holdfast_command({"verify", run, "--all"});
    CHECK(said.code == 1);
    CHECK(said.out.find("1 of 2 versions have problems\n") != std::string::npos);
  }
}

TEST_CASE("verify_works_where_nothing_can_be_written") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10});
  // A file in place of the folder refuses root too.
  boost::filesystem::remove_all(scratch / "mnist/hints");
  write_file(scratch / "mnist/hints", "");
  const Said said = holdfast_command({"verify", (scratch / "mnist").string(), "--json"});
  CHECK(said.code == 0);
  CHECK(said.json()["recorded"] == false);
}

TEST_CASE("verify_of_a_plain_file_checks_only_its_structure_and_reports_that") {
  ScratchFolder scratch;
  const path file = scratch / "m.safetensors";
  write_safetensors(file, {{"w", Dtype::u8, {4}, "abcd"}});
  const Said good = holdfast_command({"verify", file.string()});
  CHECK(good.code == 0);
  CHECK(good.out.find("has no digests, so only its structure was checked") != std::string::npos);
  boost::filesystem::resize_file(file, 4098);
  CHECK(holdfast_command({"verify", file.string()}).code == 1);
  CHECK(holdfast_command({"verify", (scratch / "n.safetensors").string()}).code == 3);
}
