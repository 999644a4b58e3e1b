// Which version a session starts from.
#include <algorithm>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "run_contents.h"
#include "storage/scratch_folder.h"

using namespace run_fixture;

TEST_CASE("a_new_run_starts_from_scratch_and_its_versions_are_restored") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  {
    auto first = open_run(*store);
    REQUIRE(first.ok());
    CHECK_FALSE(first->base());
    CHECK(first->choice().reason == "starting from scratch: a new run");
    const auto saved = first->save(version(10));
    REQUIRE(saved.ok());
    CHECK(saved->uid.seq == 2);
    CHECK(saved->bytes > 0);
    REQUIRE(first->save(version(20)).ok());
  }
  auto second = open_run(*store, {.session = "bbbbbbbb"});
  REQUIRE(second.ok());
  CHECK(second.step == 20);
  CHECK(second->base()->text() == "000003-aaaaaaaa");
}

TEST_CASE("a_corrupt_newest_version_is_passed_over_with_a_verdict") {
  const auto store = open_memory_store(make_memory_image());
  Uid newest;
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
    newest = session->save(version(2))->uid;
  }
  const auto check_passed_over = [&] {
    auto session = open_run(*store, {.session = "bbbbbbbb"});
    REQUIRE(session.ok());
    CHECK(session.step == 1);
    REQUIRE(session->choice().passed_over.size() == 1);
    CHECK(session->choice().passed_over[0].uid == newest);
    REQUIRE(session.said.size() == 1);
    CHECK(session.said[0].find("version " + newest.short_text() + " is passed over") == 0);
    History history;
    REQUIRE(history.refresh(*store).ok());
    CHECK(std::any_of(history.notes().begin(), history.notes().end(), [&](const Note& note) {
      return note.kind == NoteKind::verdict && note.about == std::vector<Uid>{newest};
    }));
  };
  SECTION("a flipped bit in a tensor") {
    damage(*store, payload_of(newest), 4200);
    check_passed_over();
  }
  SECTION("a flipped bit in the manifest") {
    damage(*store, entry_name(newest, EntryKind::save), 100);
    check_passed_over();
  }
  SECTION("a missing payload") {
    REQUIRE(store->remove(payload_of(newest)).ok());
    check_passed_over();
  }
  SECTION("a short payload") {
    const std::string bytes = *store->get(payload_of(newest));
    REQUIRE(store->put(payload_of(newest), bytes.substr(0, bytes.size() - 1)).ok());
    check_passed_over();
  }
}

TEST_CASE("nothing_ever_starts_from_scratch_when_versions_exist") {
  const auto store = open_memory_store(make_memory_image());
  Uid only;
  {
    auto session = open_run(*store);
    only = session->save(version(1))->uid;
  }
  SECTION("none of them loads") {
    damage(*store, payload_of(only), 4200);
    const auto session = open_run(*store, {.session = "bbbbbbbb"});
    REQUIRE(session.writer.code() == StatusCode::corrupt);
    CHECK(session.writer.status().message().find("none can be resumed from; 2-aaaa: ") != std::string::npos);
    CHECK(session.writer.status().message().find("--holdfast.fresh") != std::string::npos);
  }
  SECTION("they are gone, but the journal mentions one") {
    { REQUIRE(open_run(*store, {.session = "bbbbbbbb"}).ok()); }
    REQUIRE(store->remove(entry_name(only, EntryKind::save)).ok());
    const auto session = open_run(*store, {.session = "cccccccc"});
    REQUIRE(session.writer.code() == StatusCode::incomplete);
    CHECK(session.writer.status().message().find("the journal mentions version 2-aaaa") != std::string::npos);
  }
  SECTION("unless it is asked for") {
    auto session = open_run(*store, {.session = "bbbbbbbb", .fresh = true});
    REQUIRE(session.ok());
    CHECK_FALSE(session.step);
    CHECK(session->choice().reason.find("as requested (--holdfast.fresh)") != std::string::npos);
    REQUIRE(session->save(version(5)).ok());
    session = open_run(*store, {.session = "cccccccc", .take_over = true});
    CHECK(session.step == 5);
  }
}

TEST_CASE("a_misfit_is_an_error_and_never_a_fallback") {
  const auto store = open_memory_store(make_memory_image());
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
    REQUIRE(session->save(version(2)).ok());
  }
  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  request.load = [](const VersionReader&) { return Status(StatusCode::misfit, "the layer is gone"); };
  const auto before = *store->list("journal");
  const auto writer = RunWriter::open(*store, request);
  REQUIRE(writer.code() == StatusCode::misfit);
  CHECK(writer.status().message() == "the layer is gone");
  auto after = *store->list("journal");
  std::erase_if(after, [&](const std::string& name) { return name.ends_with(".note.json"); });
  CHECK(after == before);  // no takeover happened
}

TEST_CASE("a_deliberate_rewind_stays_rewound_and_leaves_the_rest_alone") {
  const auto store = open_memory_store(make_memory_image());
  {
    auto session = open_run(*store);
    for (int step = 1; step <= 3; ++step) REQUIRE(session->save(version(step)).ok());
  }
  { REQUIRE(open_run(*store, {.session = "bbbbbbbb", .from = "2"}).step == 1); }  // numbers 1 open, 2.. saves
  { CHECK(open_run(*store, {.session = "cccccccc"}).step == 1); }
  {
    auto session = open_run(*store, {.session = "dddddddd"});
    REQUIRE(session->save(version(9)).ok());
  }
  CHECK(open_run(*store, {.session = "eeeeeeee"}).step == 9);
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 2, 3, 9});
  SECTION("a version that does not exist is refused with a list of those that do") {
    const auto session = open_run(*store, {.session = "ffffffff", .from = "77"});
    CHECK(session.writer.code() == StatusCode::not_found);
    CHECK(session.writer.status().message().find("there is no version 77; there are 2-aaaa, 3-aaaa, 4-aaaa") == 0);
    CHECK(open_run(*store, {.session = "ffffffff", .from = "x"}).writer.code() == StatusCode::invalid);
  }
}

TEST_CASE("a_starting_point_that_a_restarted_command_repeats_counts_once") {
  const auto store = open_memory_store(make_memory_image());
  {
    auto session = open_run(*store);  // 1 open, 2.. saves
    for (int step = 1; step <= 3; ++step) REQUIRE(session->save(version(step)).ok());
  }
  {
    auto session = open_run(*store, {.session = "bbbbbbbb", .from = "2"});
    REQUIRE(session.step == 1);
  }
  {
    auto session = open_run(*store, {.session = "cccccccc", .from = "2"});  // nothing was saved since
    REQUIRE(session.step == 1);
    REQUIRE(session->save(version(7)).ok());
    REQUIRE(session->drop({Uid{2, "aaaaaaaa"}}, "retention").ok());
  }
  auto again = open_run(*store, {.session = "dddddddd", .from = "2"});
  REQUIRE(again.ok());
  CHECK(again.step == 7);
  CHECK(again->choice().starting_point_is_used);
  CHECK(again->choice().reason.find("--holdfast.from again:2") != std::string::npos);
  REQUIRE(again->save(version(8)).ok());
  again.writer->reset();
  CHECK(open_run(*store, {.session = "eeeeeeee", .from = "2-aaaa"}).step == 8);
  {  // a rewind to another version counts as new, and so does "again:"
    auto session = open_run(*store, {.session = "ffffffff", .from = "3"});
    REQUIRE(session.step == 2);
    REQUIRE(session->save(version(9)).ok());
  }
  CHECK(open_run(*store, {.session = "abababab", .from = "3"}).step == 9);
  CHECK(open_run(*store, {.session = "acacacac", .from = "again:3"}).step == 2);
}

TEST_CASE("a_start_from_scratch_counts_once_for_each_job_and_always_by_hand") {
  const auto store = open_memory_store(make_memory_image());
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
  }
  { CHECK_FALSE(open_run(*store, {.session = "bbbbbbbb", .fresh = true, .job = "slurm-7"}).step); }
  {
    auto session = open_run(*store, {.session = "cccccccc", .fresh = true, .job = "slurm-7"});
    CHECK_FALSE(session.step);  // nothing was saved since
    REQUIRE(session->save(version(2)).ok());
  }
  CHECK(open_run(*store, {.session = "dddddddd", .fresh = true, .job = "slurm-7"}).step == 2);
  CHECK_FALSE(open_run(*store, {.session = "eeeeeeee", .fresh = true, .job = "slurm-8"}).step);
  CHECK_FALSE(open_run(*store, {.session = "ffffffff", .fresh = true}).step);
}

TEST_CASE("foreign_and_torn_files_never_stop_a_run") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
  }
  for (const std::string name :
       {"journal/desktop.ini", "journal/000002-aaaaaaaa.save (1).json", "journal/000009-zzzzzzzz.save.json",
        "journal/000099-aaaaaaaa.open.json", "journal/000098-aaaaaaaa.note.json", "data/notes.txt",
        "journal/999999999999999999999999-aaaaaaaa.save.json"}) {
    REQUIRE(store->put(name, "{\"holdfast\":\"open\",\"for").ok());
  }
  REQUIRE(store->put("journal/000097-aaaaaaaa.save.json", "").ok());  // a version that was torn to nothing
  auto session = open_run(*store, {.session = "bbbbbbbb"});
  REQUIRE(session.ok());
  CHECK(session.step == 1);
  CHECK(session->save(version(2)).ok());
  CHECK(session->uid().seq > 99);
  CHECK(session->remove_orphans().ok());
  CHECK(store->get("data/notes.txt").ok());
}

TEST_CASE("deaths_condemn_a_version_after_two_of_this_program_only") {
  const auto store = open_memory_store(make_memory_image());
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
    REQUIRE(session->save(version(2)).ok());
  }
  int number = 0;
  const auto die = [&](const std::string& program) {
    auto session = open_run(*store, {.session = "b000000" + std::to_string(number++), .program = program});
    REQUIRE(session->note(NoteKind::death, {*session->base()}, "SIGSEGV", {{"steps", 3}}).ok());
  };
  const auto resumes_at = [&](const std::string& program) {
    return open_run(*store, {.session = "c000000" + std::to_string(number++), .program = program}).step;
  };
  die("one");
  CHECK(resumes_at("one") == 2);
  die("two");
  CHECK(resumes_at("one") == 2);
  die("one");
  CHECK(resumes_at("one") == 1);
  CHECK(resumes_at("two") == 2);
}

TEST_CASE("a_base_that_cannot_be_read_is_tried_again_after_a_pause") {
  const auto store = open_memory_store(make_memory_image());
  { REQUIRE(open_run(*store)->save(version(1)).ok()); }
  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  int readable_after = 0, tries = 0;
  std::vector<double> pauses;
  request.pause = [&](double seconds) { pauses.push_back(seconds); };
  request.load = [&](const VersionReader&) {
    return tries++ < readable_after ? Status(StatusCode::unreadable, "the mount is gone") : Status();
  };
  SECTION("until it can be read") {
    readable_after = 2;
    CHECK(RunWriter::open(*store, request).ok());
    CHECK(tries == 3);
  }
  SECTION("and is never passed over") {
    readable_after = 100;
    CHECK(RunWriter::open(*store, request).code() == StatusCode::unreadable);
    CHECK(tries == 3);
  }
  REQUIRE(pauses.size() == 2);
  CHECK(pauses[0] > 0);
  CHECK(pauses[1] > pauses[0]);
}

TEST_CASE("a_run_name_that_is_not_utf8_is_refused_before_anything_is_written") {
  const auto store = open_memory_store(make_memory_image());
  OpenRequest request;
  request.run = "gr\xf6\xdf";
  request.session = "bbbbbbbb";
  const auto writer = RunWriter::open(*store, request);
  CHECK(writer.code() == StatusCode::invalid);
  CHECK(writer.status().message().find("\"gr\\xf6\\xdf\"") != std::string::npos);
  CHECK(store->list("journal")->empty());
}
