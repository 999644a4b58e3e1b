// holdfast copy: a copy resumes as the original does, an interrupted one continues, and damage is not copied.
#include "runs.h"

using namespace holdfast::storage;

TEST_CASE("copy_of_a_run_has_all_versions_and_the_journal") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20, 30});
  boost::filesystem::create_directory(scratch / "backup");
  const std::string run = (scratch / "mnist").string(), backup = (scratch / "backup").string();
  const Said said = holdfast_command({"copy", run, backup});
  INFO(said.err);
  CHECK(said.code == 0);
  CHECK(said.out.find("version 4: ") == 0);  // the newest first
  CHECK(said.out.find("run mnist is also in " + backup + "/mnist\n") != std::string::npos);
  CHECK(holdfast_command({"verify", backup + "/mnist", "--all"}).code == 0);
  CHECK(holdfast_command({"diff", run, backup + "/mnist"}).code == 0);
  CHECK(holdfast_command({"ls", run, "--json"}).json()["sessions"] ==
        holdfast_command({"ls", backup + "/mnist", "--json"}).json()["sessions"]);

  const auto again = holdfast_command({"copy", run, backup, "--json"}).json();
  CHECK(again["ok"] == true);
  REQUIRE(again["versions"].size() == 3);
  for (const auto& version : again["versions"]) CHECK(version["bytes"] == 0);
}

TEST_CASE("copy_of_one_version_is_a_run_of_its_own") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20, 30});
  const std::string best = (scratch / "best").string();
  CHECK(holdfast_command({"copy", (scratch / "mnist").string() + "/3", best}).code == 0);
  const auto list = holdfast_command({"ls", best, "--json"}).json();
  REQUIRE(list["versions"].size() == 1);
  CHECK(list["versions"][0]["step"] == 20);
  CHECK(list["next_start"]["ok"] == true);
}

TEST_CASE("copy_replaces_what_an_interrupted_one_left_and_leaves_damaged_versions_out") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  const std::string run = (scratch / "mnist").string(), copy = (scratch / "copy").string();
  REQUIRE(holdfast_command({"copy", run, copy}).code == 0);
  const std::string older = "data/000002-aaaaaaaa.r0of1.safetensors", newer = "data/000003-aaaaaaaa.r0of1.safetensors";
  const std::string whole = content_of(scratch / "mnist" / older);
  write_file(scratch / "copy" / older, whole.substr(0, 100));             // a part
  write_file(scratch / "copy" / newer, std::string(whole.size(), '\0'));  // reserved, not yet written
  CHECK(holdfast_command({"copy", run, copy}).code == 0);
  CHECK(holdfast_command({"verify", copy, "--all"}).code == 0);

  std::string wrong = whole;
  wrong.back() ^= 1;
  write_file(scratch / "mnist" / older, wrong);
  const std::string other = (scratch / "other").string();
  const Said said = holdfast_command({"copy", run, other});
  CHECK(said.code == 1);
  CHECK(said.out.find("version 2: not copied") != std::string::npos);
  CHECK(said.out.find(older) != std::string::npos);
  CHECK(holdfast_command({"ls", other, "--json"}).json()["versions"].size() == 1);
}

TEST_CASE("copy_refuses_what_it_cannot_do_with_the_reason") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10});
  const std::string run = (scratch / "mnist").string();
  CHECK(holdfast_command({"copy", run}).code == 2);
  CHECK(holdfast_command({"copy", run, run}).code == 2);
  CHECK(holdfast_command({"copy", (scratch / "nothing").string(), run}).code == 3);
  const Said deep = holdfast_command({"copy", run, (scratch / "no/such/folder").string()});
  CHECK(deep.code == 3);
  CHECK(deep.err.find((scratch / "no").string()) != std::string::npos);
  CHECK(deep.err.find("--holdfast") == std::string::npos);
  write_file(scratch / "file", "x");
  CHECK(holdfast_command({"copy", run, (scratch / "file").string()}).code == 2);
  SECTION("a run that continues elsewhere") {
    const std::string copy = (scratch / "copy").string();
    REQUIRE(holdfast_command({"copy", run, copy}).code == 0);
    {
      const auto store = open_file_store(scratch / "copy");
      OpenRequest request;
      request.run = "mnist";
      request.session = "bbbbbbbb";
      request.host = "laptop";
      REQUIRE(RunWriter::open(*store, request).ok());
    }
    const Said said = holdfast_command({"copy", run, copy});
    CHECK(said.code == 3);
    CHECK(said.err.find("laptop") != std::string::npos);
    CHECK(holdfast_command({"copy", copy, run}).code == 0);  // the other way it continues
  }
}
