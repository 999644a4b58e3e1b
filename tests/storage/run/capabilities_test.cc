// What a store promises, and what a run does where a promise is missing.
#include <fcntl.h>

#include <cerrno>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "run_contents.h"
#include "storage/forwarding_files.h"
#include "storage/image_store.h"
#include "storage/scratch_folder.h"
#include "storage/weaker_store.h"

using namespace run_fixture;

TEST_CASE("storage_on_which_two_sessions_could_lose_each_others_versions_is_not_opened_for_writing") {
  class Overwriting final : public ForwardingFiles {  // neither links nor exclusive renames nor O_EXCL
   public:
    int open(const Path& path, int flags, int mode) override {
      return ForwardingFiles::open(path, flags & ~O_EXCL, mode);
    }
    int link(const Path&, const Path&) override { return -EPERM; }
    int rename_exclusive(const Path&, const Path&) override { return -EINVAL; }
  } files;
  ScratchFolder folder;
  { REQUIRE(open_run(*open_file_store(folder / "run"))->save(version(1)).ok()); }
  const auto store = open_file_store(folder / "run", {}, files);
  const auto session = open_run(*store, {.session = "bbbbbbbb"});
  REQUIRE(session.writer.code() == StatusCode::unsupported);
  CHECK(session.writer.status().message().find("--holdfast.dir") != std::string::npos);
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1});
}

TEST_CASE("storage_whose_listing_may_lack_what_was_created_is_not_opened_for_writing") {
  class LateListing final : public ImageStore {  // all but the listing
   public:
    using ImageStore::ImageStore;
    Capabilities capabilities() const override { return can; }
    Status prepare() override { return {}; }
    Capabilities can;
  };
  const auto whole = open_memory_store(make_memory_image());
  { REQUIRE(open_run(*whole)->save(version(1)).ok()); }
  LateListing store(*whole);
  store.can = whole->capabilities();
  store.can.list_after_create = false;
  const auto session = open_run(store, {.session = "bbbbbbbb"});
  REQUIRE(session.writer.code() == StatusCode::unsupported);
  CHECK(session.writer.status().message().find("may list a folder without") != std::string::npos);
  CHECK(session.writer.status().message().find("--holdfast.dir") != std::string::npos);
  CHECK(steps_of(store) == std::vector<std::uint64_t>{1});
}

TEST_CASE("a_store_that_misses_what_an_acknowledgement_needs_acknowledges_nothing") {
  WeakerStore store(open_memory_store(make_memory_image()));
  SECTION("two sessions can create one object") { store.can.create_only_enforced = false; }
  SECTION("a listing may lack an object") { store.can.list_after_create = false; }
  const auto session = open_run(store);
  REQUIRE(session.writer.code() == StatusCode::unsupported);
  CHECK(session.writer.status().message().find("--holdfast.dir") != std::string::npos);
  CHECK(store.list("journal")->empty());
}

TEST_CASE("where_publishing_may_tear_an_entry_an_entry_counts_only_if_it_reads_back_whole") {
  WeakerStore store(open_memory_store(make_memory_image()));
  store.can.atomic_publish = false;
  auto session = open_run(store);
  REQUIRE(session->save(version(1)).ok());
  SECTION("a manifest") {
    store.torn = ".save.json";
    const auto saved = session->save(version(2));
    REQUIRE(saved.code() == StatusCode::unknown);
    CHECK(saved.status().message().find("000003-aaaaaaaa.save.json") != std::string::npos);
    store.torn = "";
    CHECK(open_run(store, {.session = "bbbbbbbb", .take_over = true}).step == 1);
  }
  SECTION("an open entry") {
    store.torn = ".open.json";
    const auto next = open_run(store, {.session = "bbbbbbbb", .take_over = true});
    CHECK(next.writer.code() == StatusCode::corrupt);
    CHECK(next.writer.status().message().find("bbbbbbbb.open.json") != std::string::npos);
    CHECK(session->save(version(2)).ok());  // the other session has not taken the run over
  }
  SECTION("a drop note, without which nothing is removed") {
    REQUIRE(session->save(version(2)).ok());
    store.torn = ".note.json";
    CHECK(session->prune({.keep_last = 1}).code() == StatusCode::corrupt);
    CHECK(steps_of(store) == std::vector<std::uint64_t>{1, 2});
  }
}

TEST_CASE("a_lock_that_does_not_work_between_processes_is_not_taken") {
  WeakerStore store(open_memory_store(make_memory_image()));
  store.can.host_lock = false;
  auto first = open_run(store);
  REQUIRE(first->save(version(1)).ok());
  const auto second = open_run(store, {.session = "bbbbbbbb"});
  REQUIRE(second.ok());
  CHECK(second.step == 1);
  CHECK(first->save(version(2)).code() == StatusCode::superseded);
}

TEST_CASE("a_version_claims_the_durability_that_its_store_promises") {
  WeakerStore store(open_memory_store(make_memory_image()));
  store.can.durable_put = true;
  auto session = open_run(store);
  CHECK(session->save(version(1))->durability == "fsynced");
  store.can.durable_put = false;
  CHECK(session->save(version(2))->durability == "process-safe");
}
