#include "holdfast/storage/run/run_writer.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <functional>
#include <limits>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/forwarding_files.h"
#include "storage/image_store.h"
#include "storage/run_fixture.h"
#include "storage/scratch_folder.h"

using namespace run_fixture;

namespace {

std::vector<std::uint64_t> steps_of(const Store& store) {
  History history;
  REQUIRE(history.refresh(store).ok());
  std::vector<std::uint64_t> steps;
  for (const VersionRef& version : history.versions()) {
    const auto reader = VersionReader::open(store, version.uid);
    REQUIRE(reader.ok());
    steps.push_back(*read_step(*reader));
  }
  return steps;
}

/// Replaces one byte of an object, like a failing disk.
void damage(Store& store, const std::string& name, std::size_t at) {
  std::string bytes = *store.get(name);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  REQUIRE(store.put(name, bytes).ok());
}

std::string payload_of(const Uid& uid) { return payload_name({uid, 0, 1}); }

}  // namespace

TEST_CASE("a_new_run_starts_from_scratch_and_its_versions_come_back") {
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

TEST_CASE("numbers_are_never_used_twice") {
  const auto store = open_memory_store(make_memory_image());
  std::uint64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    auto session = open_run(*store, {.session = std::string(8, static_cast<char>('a' + i))});
    REQUIRE(session.ok());
    CHECK(session->uid().seq > last);
    last = session->save(version(i + 1))->uid.seq;
    REQUIRE(session->prune({.keep_last = 1}).ok());
    last = std::max(last, session->history().highest_seq());
  }
}

TEST_CASE("a_second_start_on_the_same_host_is_refused_with_a_sentence_unless_it_takes_over") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  const auto other = open_file_store(folder / "run");
  auto first = open_run(*store);
  REQUIRE(first->save(version(10)).ok());
  const auto second = open_run(*other, {.session = "bbbbbbbb"});
  REQUIRE(second.writer.code() == StatusCode::busy);
  CHECK(
      second.writer.status().message() ==
      "run test in " + (folder / "run").string() +
          " is already running as pid 1 on host host since 2026-01-01T00:00:00Z; wait for it, end it, or take the run "
          "over with --holdfast.take-over");
  REQUIRE(first->save(version(11)).ok());

  auto third = open_run(*other, {.session = "cccccccc", .take_over = true});
  REQUIRE(third.ok());
  CHECK(third.step == 11);
  const auto stale = first->save(version(12));
  REQUIRE(stale.code() == StatusCode::superseded);
  CHECK(stale.status().message().find("was taken over by session cccccccc on host host (pid 1)") != std::string::npos);
  CHECK(first->save(version(13)).code() == StatusCode::superseded);
  CHECK(first->prune({}).code() == StatusCode::superseded);
  CHECK(third->save(version(14)).ok());
}

TEST_CASE("retention_keeps_the_last_versions_and_says_what_it_dropped") {
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

TEST_CASE("a_corrupt_newest_version_gives_way_to_the_one_before_with_a_verdict") {
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
  SECTION("they are gone, but the journal tells of one") {
    { REQUIRE(open_run(*store, {.session = "bbbbbbbb"}).ok()); }
    REQUIRE(store->remove(entry_name(only, EntryKind::save)).ok());
    const auto session = open_run(*store, {.session = "cccccccc"});
    REQUIRE(session.writer.code() == StatusCode::incomplete);
    CHECK(session.writer.status().message().find("the journal tells of version 2-aaaa") != std::string::npos);
  }
  SECTION("unless it is asked for") {
    auto session = open_run(*store, {.session = "bbbbbbbb", .fresh = true});
    REQUIRE(session.ok());
    CHECK_FALSE(session.step);
    CHECK(session->choice().reason.find("because that was asked for (--holdfast.fresh)") != std::string::npos);
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
  SECTION("what does not exist is refused with what does") {
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

TEST_CASE("orphans_of_closed_sessions_are_removed_and_nothing_else") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  {
    auto session = open_run(*store);
    REQUIRE(session->save(version(1)).ok());
  }
  REQUIRE(store->put("data/000050-aaaaaaaa.r0of1.safetensors", "left by a save that was killed").ok());
  REQUIRE(store->put("data/000051-99999999.r0of1.safetensors", "of a session nobody knows").ok());
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

TEST_CASE("a_closed_session_does_nothing_more") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  REQUIRE(session->note(NoteKind::close, {}, "end", {}).ok());
  CHECK(session->save(version(2)).code() == StatusCode::invalid);
  CHECK(open_run(*store, {.session = "bbbbbbbb"}).step == 1);  // and its lock is free
}

TEST_CASE("a_version_that_could_not_be_read_back_is_not_acknowledged_and_leaves_nothing") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  SaveRequest request = version(2);
  SECTION("a value nests too deep") {
    nlohmann::json deep = 1;
    for (int i = 0; i < 100; ++i) deep = nlohmann::json::array({deep});
    request.values["deep"] = deep;
  }
  SECTION("a tied name leads nowhere") { request.tied["v"] = "gone"; }
  const auto saved = session->save(request);
  CHECK(saved.code() == StatusCode::invalid);
  CHECK(store->list("data")->size() == 1);
  CHECK(session->save(version(3)).ok());
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 3});
}

TEST_CASE("a_version_that_its_session_refuses_when_it_sees_the_tensors_leaves_nothing") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  REQUIRE(session->save(version(1)).ok());
  SaveRequest request = version(2);
  request.tensors.push_back(constant_tensor("bad", std::numeric_limits<float>::infinity()));
  request.inspect = [](const Manifest& manifest) {
    const bool is_finite = manifest.find("bad")->non_finite == 0;
    return is_finite ? Status() : Status(StatusCode::misfit, "not that one");
  };
  const auto refused = session->save(request);
  CHECK(refused.code() == StatusCode::misfit);
  CHECK(refused.status().message().find("not that one") != std::string::npos);
  CHECK(store->list("data")->size() == 1);
  request.tensors.back() = constant_tensor("bad", 1);
  CHECK(session->save(request).ok());
  CHECK(steps_of(*store) == std::vector<std::uint64_t>{1, 2});
}

TEST_CASE("an_entry_that_could_not_be_read_back_is_not_written") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  const auto before = *store->list("journal");
  const std::string long_text(kMaxEntryBytes, 'x');
  CHECK(session->note(NoteKind::verdict, {}, long_text, {}).code() == StatusCode::invalid);
  CHECK(session->note(NoteKind::verdict, {}, "", {{"text", long_text}}).code() == StatusCode::invalid);
  CHECK(*store->list("journal") == before);
  // A session that other sessions cannot see would not stop them.
  CHECK(open_run(*store, {.session = "not hex!", .take_over = true}).writer.code() == StatusCode::invalid);
  CHECK(open_run(*store, {.session = "bbbbbbbb", .program = long_text, .take_over = true}).writer.code() ==
        StatusCode::invalid);
  CHECK(*store->list("journal") == before);
  CHECK(session->save(version(1)).ok());
}

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
  SECTION("and is never passed by") {
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

namespace {

/// A version with an additional tensor, "moment", which holds `count` NaN.
SaveRequest with_nan(std::uint64_t step, std::size_t count) {
  SaveRequest request = version(step);
  request.tensors.push_back(constant_tensor("moment", 1));
  request.tensors.back().copy = [count](std::uint64_t offset, std::span<std::byte> into) {
    for (std::size_t at = 0; at < into.size(); at += sizeof(float)) {
      const bool is_nan = (offset + at) / sizeof(float) < count;
      const float value = is_nan ? std::numeric_limits<float>::quiet_NaN() : 1.0F;
      std::memcpy(into.data() + at, &value, sizeof value);
    }
  };
  return request;
}

std::vector<std::uint64_t> numbers_of(const Store& store) {
  History history;
  REQUIRE(history.refresh(store).ok());
  std::vector<std::uint64_t> numbers;
  for (const VersionRef& version : history.versions()) numbers.push_back(version.uid.seq);
  return numbers;
}

}  // namespace

TEST_CASE("a_version_knows_how_many_of_its_numbers_are_not_finite") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  const auto finite = session->save(version(1));
  CHECK(finite->non_finite == 0);
  CHECK(finite->non_finite_tensors.empty());
  const auto bad = session->save(with_nan(2, 5));
  CHECK(bad->non_finite == 5);
  CHECK(bad->non_finite_tensors == std::vector<std::string>{"moment"});
  const auto read = [&](const Uid& uid) { return VersionReader::open(*store, uid)->manifest(); };
  CHECK(read(finite->uid).non_finite == std::uint64_t{0});
  CHECK(read(bad->uid).non_finite == std::uint64_t{5});
  CHECK(read(bad->uid).find("moment")->non_finite == 5);
  CHECK(read(bad->uid).find("b")->non_finite == 0);
  // A finite tensor has no "non_finite" key, and old manifests have neither key.
  CHECK(store->get(entry_name(finite->uid, EntryKind::save))->find("\"non_finite\":0,") != std::string::npos);
  Manifest old = read(finite->uid);
  old.non_finite.reset();
  CHECK(encode(old).find("non_finite") == std::string::npos);
  CHECK_FALSE(decode_manifest(encode(old))->non_finite);
}

TEST_CASE("nan_never_pushes_out_the_last_version_whose_tensors_are_finite") {
  const auto store = open_memory_store(make_memory_image());
  auto session = open_run(*store);
  for (int step = 1; step <= 2; ++step) REQUIRE(session->save(version(step)).ok());
  for (int step = 3; step <= 4; ++step) REQUIRE(session->save(with_nan(step, 20)).ok());
  SECTION("within a session, and the drop says why") {
    CHECK(session->prune({.keep_last = 2})->size() == 1);
    REQUIRE(session.all_said->size() == 1);
    CHECK(session.all_said->back().find("version 3-aaaa") != std::string::npos);
    CHECK(numbers_of(*store) == std::vector<std::uint64_t>{3, 4, 5});
    CHECK(session->prune({.keep_last = 2})->empty());
    CHECK(session.all_said->size() == 1);  // reported only once
    History history;
    REQUIRE(history.refresh(*store).ok());
    CHECK(history.notes().back().reason.find("version 3-aaaa, the newest whose tensors are all finite") !=
          std::string::npos);
  }
  SECTION("in a session that did not write it") {
    session = open_run(*store, {.session = "bbbbbbbb", .take_over = true});
    REQUIRE(session->save(with_nan(5, 20)).ok());
    REQUIRE(session->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*store);
    CHECK(left.size() == 3);
    CHECK(left.front() == 3);
  }
  SECTION("until a finite one is among those kept") {
    REQUIRE(session->prune({.keep_last = 2}).ok());
    REQUIRE(session->save(version(5)).ok());
    REQUIRE(session->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*store);
    CHECK(left.size() == 2);
    CHECK(left.front() == 5);
  }
  SECTION("infinities that are there on purpose keep nothing back") {
    const auto other = open_memory_store(make_memory_image());
    auto masked = open_run(*other);
    for (int step = 1; step <= 5; ++step) REQUIRE(masked->save(with_nan(step, 7)).ok());
    REQUIRE(masked->prune({.keep_last = 2}).ok());
    CHECK(numbers_of(*other) == std::vector<std::uint64_t>{5, 6});
    REQUIRE(masked->save(with_nan(6, 8)).ok());
    REQUIRE(masked->save(with_nan(7, 9)).ok());
    REQUIRE(masked->prune({.keep_last = 2}).ok());
    const auto left = numbers_of(*other);
    CHECK(left.size() == 3);
    CHECK(left.front() == 6);
  }
}

namespace {

[[noreturn]] void wait_for_ever() {
  for (;;) ::pause();
}

/// A process that ends when this object does, however the test ends.
class Process {
 public:
  explicit Process(pid_t pid) : pid_(pid) {}
  ~Process() { end(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);  // fails for a grandchild, for which its own parent waits
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

/// Forks a process that shares all open files of this one.
pid_t fork_idle() {
  const pid_t pid = ::fork();
  if (pid == 0) wait_for_ever();
  return pid;
}

}  // namespace

TEST_CASE("a_child_that_outlives_its_session_keeps_nobody_out") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  SECTION("after an end in order") {
    auto session = open_run(*store);
    const Process child(fork_idle());
    REQUIRE(session->note(NoteKind::close, {}, "end", {}).ok());
    const auto next = open_run(*store, {.session = "bbbbbbbb"});
    CHECK(next.ok());
    CHECK(next.said.empty());
  }
  SECTION("after a death, which is said, and the next holder is known again") {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t forked = ::fork();
    if (forked == 0) {
      auto session = open_run(*store);
      const pid_t idle = fork_idle();
      (void)!::write(ready[1], &idle, sizeof idle);
      wait_for_ever();
    }
    Process trainer(forked);
    pid_t idle = 0;
    REQUIRE(::read(ready[0], &idle, sizeof idle) == static_cast<ssize_t>(sizeof idle));
    const Process helper(idle);
    CHECK(open_run(*store, {.session = "cccccccc"}).writer.code() == StatusCode::busy);
    trainer.end();
    {
      const auto next = open_run(*store, {.session = "bbbbbbbb"});
      CHECK(next.ok());
      REQUIRE(next.said.size() == 1);
      CHECK(next.said[0].find("a process that it started keeps the lock") != std::string::npos);
      const auto third = open_run(*open_file_store(folder / "run"), {.session = "dddddddd"});
      CHECK(third.writer.code() == StatusCode::busy);
    }
    ::close(ready[0]);
    ::close(ready[1]);
  }
  SECTION("and its own end gives up nobody's lock") {
    auto session = open_run(*store);
    const pid_t child = ::fork();
    if (child == 0) {
      session = open_run(*store, {.session = "eeeeeeee"});  // the copy of the parent's session ends here
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    CHECK(open_run(*store, {.session = "bbbbbbbb"}).writer.code() == StatusCode::busy);
  }
}

TEST_CASE("a_holder_that_nobody_here_can_judge_keeps_its_lock") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  auto session = open_run(*store);
  const Path lock = folder / "run" / "hints" / "session.lock";
  for (const std::string process : {"", "\nprocess 999999 1 other-boot/pid:[1]", "\nprocess x", "\nprocess ../1 1 x"}) {
    REQUIRE(store->put("hints/session.lock", "pid 9 on host elsewhere" + process).ok());
    const auto next = open_run(*store, {.session = "bbbbbbbb"});
    REQUIRE(next.writer.code() == StatusCode::busy);
    CHECK(next.writer.status().message().find("is already running as pid 9 on host elsewhere;") != std::string::npos);
  }
}
