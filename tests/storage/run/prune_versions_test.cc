#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "run_contents.h"
#include "storage/scratch_folder.h"

using namespace run_fixture;

TEST_CASE("retention_keeps_the_last_versions_and_records_what_it_dropped") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  for (int step = 1; step <= 5; ++step) REQUIRE(session->save(version(step)).ok());
  const auto dropped = session->prune({.keep_last = 2});
  REQUIRE(dropped.ok());
  CHECK(dropped->size() == 3);
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{4, 5});
  CHECK(store->list("data")->size() == 2);
  History history;
  REQUIRE(history.refresh(*store).ok());
  for (const Uid& uid : *dropped) CHECK(history.is_dropped(uid));
  CHECK(session->prune({.keep_last = 2})->empty());
  CHECK(session->prune({.keep_last = 0})->empty());
}

TEST_CASE("the_newest_version_and_the_base_before_the_first_save_cannot_be_dropped") {
  const auto store = open_memory_store(make_memory_image());
  Uid one, two;
  {
    auto session = open_run(*store);
    one = session->save(version(1))->uid;
    two = session->save(version(2))->uid;
    CHECK(session->drop({two}, "test").code() == StatusCode::invalid);
    CHECK(session->drop({one, two}, "test").code() == StatusCode::invalid);
    CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 2});
  }
  auto session = open_run(*store, {.session = "bbbbbbbb", .from = "2"});
  REQUIRE(session.ok());
  CHECK(session->drop({one}, "test").code() == StatusCode::invalid);  // version 2 is the one saved first
  CHECK(session->drop({two}, "test").ok());
}

TEST_CASE("a_corrupt_version_does_not_count_as_kept") {
  const auto store = open_memory_store(make_memory_image());
  Uid bad;
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
    REQUIRE(session->save(version(2)).ok());
    bad = session->save(version(3))->uid;
  }
  damage(*store, payload_of(bad), 4200);
  auto session = open_run(*store, {.session = "bbbbbbbb"});
  REQUIRE(session.step == 2);
  REQUIRE(session->save(version(4)).ok());
  REQUIRE(session->prune({.keep_last = 2}).ok());
  History history;
  REQUIRE(history.refresh(*store).ok());
  std::vector<std::uint64_t> left;
  for (const auto& v : history.versions()) left.push_back(VersionReader::open(*store, v.uid)->manifest().position.step);
  CHECK(left == std::vector<std::uint64_t>{2, 3, 4});
}

TEST_CASE("orphans_of_closed_sessions_are_removed_and_nothing_else") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
  }
  REQUIRE(store->put("data/000050-aaaaaaaa.r0of1.safetensors", "left by a save that was killed").ok());
  REQUIRE(store->put("data/000051-99999999.r0of1.safetensors", "of an unknown session").ok());
  REQUIRE(store->put("journal/.000052-aaaaaaaa.save.json.tmp", "left too").ok());
  auto session = open_run(*store, {.session = "bbbbbbbb"});
  REQUIRE(session.ok());
  CHECK(session->uid().seq > 51);
  const auto removed = session->remove_orphans();
  REQUIRE(removed.ok());
  CHECK(*removed == 2);
  CHECK(store->list("data")->size() == 2);
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1});
}
