// Damage that users and their tools do to a run's folder: pipes, links, folders and huge numbers in place of files, and
// missing parts of the run. A start survives it or reports the error; it never hangs and never begins from scratch.
#include <sys/stat.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <csignal>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "storage/run_fixture.h"
#include "storage/scratch_folder.h"

using namespace holdfast::storage;
using namespace run_fixture;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A run with versions of steps 1 and 2, whose session is over, and the names of the newest version.
struct Run {
  ScratchFolder folder;
  std::unique_ptr<Store> store = open_file_store(folder / "run");
  Uid older, newest;
  Run() {
    auto session = open_run(*store);
    older = session->save(version(1))->uid;
    newest = session->save(version(2))->uid;
  }
  Path path(const std::string& name) const { return folder / "run" / name; }
  std::string manifest() const { return entry_name(newest, EntryKind::save); }
  std::string payload() const { return payload_name({newest, 0, 1}); }
};

}  // namespace

TEST_CASE("a_version_whose_manifest_or_payload_is_not_a_file_is_passed_over") {
  ::alarm(60);  // a hang is a failure
  Run run;
  for (const std::string& name : {run.manifest(), run.payload()}) {
    const Path path = run.path(name);
    const std::string whole = *run.store->get(name);
    const auto becomes = [&](const char* what, const std::function<int()>& make) {
      CAPTURE(name, what);
      REQUIRE(run.store->remove(name).ok());
      REQUIRE(make() == 0);
      {
        const auto session = open_run(*run.store, {.session = "bbbbbbbb", .take_over = true});
        CHECK(session.step == 1);
      }
      boost::filesystem::remove(path);
      REQUIRE(run.store->put(name, whole).ok());
    };
    becomes("a pipe", [&] { return ::mkfifo(path.c_str(), 0644); });
    becomes("a folder", [&] { return ::mkdir(path.c_str(), 0755); });
    becomes("a link to nothing", [&] { return ::symlink("nothing", path.c_str()); });
    becomes("a link to itself", [&] { return ::symlink(path.filename().c_str(), path.c_str()); });
  }
  ::alarm(0);
}

TEST_CASE("an_open_entry_that_is_not_a_file_does_not_stop_a_start") {
  ::alarm(60);
  Run run;
  const std::string name = "journal/000900-cccccccc.open.json";
  SECTION("a pipe") { REQUIRE(::mkfifo(run.path(name).c_str(), 0644) == 0); }
  SECTION("a folder") { REQUIRE(::mkdir(run.path(name).c_str(), 0755) == 0); }
  const auto session = open_run(*run.store, {.session = "bbbbbbbb"});
  REQUIRE(session.ok());
  CHECK(session.step == 2);
  ::alarm(0);
}

TEST_CASE("a_run_that_lost_its_journal_or_its_manifests_does_not_start_from_scratch") {
  Run run;
  std::string trace;
  SECTION("the journal, while the payload exists") {
    boost::filesystem::remove_all(run.path("journal"));
    trace = "data/ holds files of session aaaaaaaa";
  }
  SECTION("the manifests of a session that counted its saves") {
    {
      auto session = open_run(*run.store, {.session = "bbbbbbbb", .fresh = true});
      REQUIRE(session->note(NoteKind::close, {}, "end", {{"saves", 2}}).ok());
    }
    for (const Uid& uid : {run.older, run.newest}) REQUIRE(run.store->remove(entry_name(uid, EntryKind::save)).ok());
    trace = "the journal mentions versions that session bbbbbbbb saved";
  }
  SECTION("the manifests that retention had left") {
    {
      auto session = open_run(*run.store, {.session = "bbbbbbbb", .fresh = true});
      REQUIRE(session->drop({run.older}, "keep the last 1").ok());
    }
    REQUIRE(run.store->remove(run.manifest()).ok());
    trace = "the journal mentions version " + run.older.short_text();
  }
  const auto session = open_run(*run.store, {.session = "cccccccc"});
  REQUIRE(session.writer.code() == StatusCode::incomplete);
  CHECK(contains(session.writer.status().message(), trace));
  CHECK(contains(session.writer.status().message(), "--holdfast.fresh"));
  CHECK(run.store->get(run.payload()).ok());
}

TEST_CASE("a_number_that_leaves_too_few_larger_ones_is_refused_before_a_version_could_be_lost") {
  Run run;
  REQUIRE(run.store->put("journal/999999999999999-cccccccc.note.json", "").ok());
  const auto session = open_run(*run.store, {.session = "bbbbbbbb"});
  REQUIRE_FALSE(session.ok());
  CHECK(contains(session.writer.status().message(), "999999999999999"));
  CHECK(contains(session.writer.status().message(), "Move that file away"));
}

TEST_CASE("a_run_with_an_absolute_path_opens_although_the_working_directory_is_gone") {
  Run run;
  const Path before = boost::filesystem::current_path();
  const Path gone = run.folder / "gone";
  boost::filesystem::create_directory(gone);
  boost::filesystem::current_path(gone);
  boost::filesystem::remove(gone);
  const auto again = [&] { return open_file_store(run.folder / "run")->location(); };
  std::string location;
  CHECK_NOTHROW(location = again());
  boost::filesystem::current_path(before);
  CHECK(location == (run.folder / "run").string());
}
