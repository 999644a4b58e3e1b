#include "runs.h"
#include "storage/sealed_text.h"

using namespace holdfast::storage;

TEST_CASE("ls_of_a_folder_gives_one_line_per_run") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20});
  make_run(scratch / "cifar", {7});
  make_run(scratch / "empty", {});
  write_file(scratch / "notes.txt", "no run");
  const Said said = holdfast_command({"ls", scratch.path().string(), "--json"});
  REQUIRE(said.code == 0);
  const auto runs = said.json()["runs"];
  REQUIRE(runs.size() == 3);
  CHECK(runs[0]["run"] == "cifar");
  CHECK(runs[0]["latest"]["step"] == 7);
  CHECK(runs[1]["latest"] == nullptr);
  CHECK(runs[1]["problem"] == nullptr);
  CHECK(runs[2]["versions"] == 2);
  CHECK(runs[2]["latest"]["number"] == 3);
  const Said table = holdfast_command({"ls", scratch.path().string()});
  CHECK(table.out.find("\x1b") == std::string::npos);
  CHECK(table.out.find("mnist") != std::string::npos);
}

TEST_CASE("ls_of_a_run_marks_what_the_next_start_resumes_from") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10, 20, 30});
  SECTION("the newest") {
    const auto listed = holdfast_command({"ls", (scratch / "mnist").string(), "--json"}).json();
    CHECK(listed["next_start"]["version"] == "000004-aaaaaaaa");
    REQUIRE(listed["versions"].size() == 3);
    CHECK(listed["versions"][2]["next"] == true);
    CHECK(listed["versions"][2]["step"] == 30);
    CHECK(listed["versions"][2]["tensors"] == 2);
    CHECK(listed["versions"][2]["verified"] == nullptr);
    CHECK(listed["sessions"][0]["ended"] == "end");
    const std::string text = holdfast_command({"ls", (scratch / "mnist").string()}).out;
    CHECK(text.find("> the next start resumes from 4\n") != std::string::npos);
  }
  SECTION("the one before a torn manifest, a missing and a short payload") {
    const std::string manifest = content_of(scratch / "mnist/journal/000004-aaaaaaaa.save.json");
    const path payload = scratch / "mnist/data/000004-aaaaaaaa.r0of1.safetensors";
    std::string state;
    SECTION("torn") {
      write_file(scratch / "mnist/journal/000004-aaaaaaaa.save.json", manifest.substr(0, manifest.size() / 2));
      state = "corrupt";
    }
    SECTION("missing") {
      boost::filesystem::remove(payload);
      state = "incomplete";
    }
    SECTION("short") {
      write_file(payload, content_of(payload).substr(0, 4200));
      state = "incomplete";
    }
    const auto listed = holdfast_command({"ls", (scratch / "mnist").string(), "--json"}).json();
    CHECK(listed["next_start"]["version"] == "000003-aaaaaaaa");
    CHECK(listed["versions"][2]["state"] == state);
    CHECK(listed["versions"][2]["left_behind"] == false);
    const Said said = holdfast_command({"ls", (scratch / "mnist").string()});
    CHECK(said.code == 0);
    CHECK(said.out.find(state + ": ") != std::string::npos);
  }
  SECTION("after a rewind, and what that left behind") {
    const auto store = open_file_store(scratch / "mnist");
    {
      auto session = run_fixture::open_run(*store, {.session = "bbbbbbbb", .from = "2"});
      REQUIRE(session.ok());
      REQUIRE(session->save(run_fixture::version(11)).ok());
    }
    const auto listed = holdfast_command({"ls", (scratch / "mnist").string(), "--json"}).json();
    std::vector<bool> left;
    for (const auto& version : listed["versions"]) left.push_back(version["left_behind"]);
    CHECK(left == std::vector<bool>{false, true, true, false});
    CHECK(listed["next_start"]["version"].get<std::string>().ends_with("-bbbbbbbb"));
    CHECK(holdfast_command({"ls", (scratch / "mnist").string()}).out.find("left behind") != std::string::npos);
  }
  SECTION("with what was removed and what does not belong there") {
    const auto store = open_file_store(scratch / "mnist");
    {
      auto session = run_fixture::open_run(*store, {.session = "bbbbbbbb"});
      REQUIRE(session->save(run_fixture::version(40)).ok());
      REQUIRE(session->prune({.keep_last = 2}).ok());
    }
    write_file(scratch / "mnist/journal/desktop.ini", "x");
    const auto listed = holdfast_command({"ls", (scratch / "mnist").string(), "--json"}).json();
    CHECK(listed["dropped"] == nlohmann::json({"000002-aaaaaaaa", "000003-aaaaaaaa"}));
    CHECK(listed["warnings"].size() == 1);
    CHECK(holdfast_command({"ls", (scratch / "mnist").string()}).out.find("2 removed earlier, up to number 3") !=
          std::string::npos);
  }
}

TEST_CASE("ls_without_a_path_looks_into_runs") {
  ScratchFolder scratch;
  boost::filesystem::create_directories(scratch / "runs");
  make_run(scratch / "runs/mnist", {1});
  const Said said = holdfast_command({"ls", "--json"}, {.folder = scratch.path().string()});
  REQUIRE(said.code == 0);
  CHECK(said.json()["path"] == "runs");
}

TEST_CASE("ls_suggests_what_was_probably_meant") {
  ScratchFolder scratch;
  boost::filesystem::create_directories(scratch / "runs/notes");
  make_run(scratch / "runs/mnist", {1});
  const Running here{.folder = scratch.path().string()};
  const auto error_of = [&](const std::string& named) {
    const Said said = holdfast_command({"ls", named}, here);
    CHECK(said.code == 3);
    CHECK(said.out.empty());
    return said.err;
  };
  CHECK(error_of("runs/mnits") == "holdfast: there is no runs/mnits; did you mean runs/mnist?\n");
  CHECK(error_of("mnist") == "holdfast: there is no mnist; did you mean runs/mnist?\n");
  CHECK(error_of("runs/notes") ==
        "holdfast: runs/notes contains no run: a run's folder contains a folder \"journal\"\n");
  CHECK(error_of(".") == "holdfast: . contains no run; did you mean ./runs? It contains mnist\n");
  CHECK(error_of("runs/mnist/data").find("is a part of the run ") != std::string::npos);
}

TEST_CASE("ls_reports_a_folder_without_permission") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {1});
  const path journal = scratch / "mnist/journal";
  boost::filesystem::permissions(journal, boost::filesystem::no_perms);
  const Running like_any_user{.as_any_user = true};
  const Said said = holdfast_command({"ls", (scratch / "mnist").string()}, like_any_user);
  const Said among_runs = holdfast_command({"ls", scratch.path().string()}, like_any_user);
  boost::filesystem::permissions(journal, boost::filesystem::owner_all);
  CHECK(said.code == 3);
  CHECK(said.err.find("permission denied") != std::string::npos);
  CHECK(among_runs.code == 3);
  CHECK(among_runs.out.find("mnist") != std::string::npos);
  CHECK(among_runs.out.find("permission denied") != std::string::npos);
}

TEST_CASE("ls_shows_a_version_the_same_however_its_manifest_is_laid_out") {
  ScratchFolder scratch;
  make_run(scratch / "mnist", {10});
  const std::string run = (scratch / "mnist").string();
  const auto before = holdfast_command({"ls", run, "--json"}).json()["versions"][0];
  const path manifest = scratch / "mnist/journal/000002-aaaaaaaa.save.json";
  auto object = nlohmann::json::parse(content_of(manifest));
  object.erase("digest");
  const std::string text = object.dump(1);
  write_file(manifest, sealed(text.substr(0, text.rfind('}')) + ",\n"));
  const auto after = holdfast_command({"ls", run, "--json"}).json()["versions"][0];
  for (const char* key : {"uid", "step", "time", "reason", "bytes", "tensors", "non_finite", "metrics", "state"}) {
    INFO(key);
    CHECK(after[key] == before[key]);
  }
  CHECK(after["tensors"] == 2);
}

TEST_CASE("ls_of_two_thousand_versions_is_fast") {
  ScratchFolder scratch;
  make_run(scratch / "long", {1});
  const path first = scratch / "long/journal/000002-aaaaaaaa.save.json";
  auto manifest = decode_manifest(content_of(first));
  REQUIRE(manifest.ok());
  for (std::uint64_t seq = 10; seq < 2010; ++seq) {
    manifest->uid.seq = seq;
    write_file(scratch / "long" / entry_name(manifest->uid, EntryKind::save), encode(*manifest));
  }
  const Said said = holdfast_command({"ls", (scratch / "long").string(), "--json"});
  REQUIRE(said.code == 0);
  CHECK(said.json()["versions"].size() == 2001);
  CHECK(said.bytes_read < said.json()["bytes_on_disk"].get<std::uint64_t>() + 1'000'000);  // each manifest is read once
  CHECK(said.seconds < 5);  // takes a few hundred milliseconds on an idle machine
}
