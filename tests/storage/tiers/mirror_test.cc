// A mirror holds whole versions or none, whatever interrupts it, and a run continues from it where its home is lost.
#include "holdfast/storage/tiers/mirror.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/memory_store.h"
#include "holdfast/storage/tiers/mirror_hint.h"
#include "storage/observed_steps.h"
#include "storage/run_fixture.h"
#include "storage/weaker_store.h"

using namespace holdfast::storage;
using namespace run_fixture;

namespace {

std::unique_ptr<Store> empty_store() { return open_memory_store(make_memory_image()); }

Uid save(Opened& session, std::uint64_t step) {
  const auto saved = session->save(version(step));
  REQUIRE(saved.ok());
  return saved->uid;
}

MirrorOptions of(Opened& session) {
  MirrorOptions options;
  options.session = session->order();
  options.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  return options;
}

/// What a session on another machine loads that has only these places.
std::optional<std::uint64_t> resumed_from(const Store& mirror) {
  const auto home = empty_store();
  OpenRequest request;
  request.run = "test";
  request.session = "cccccccc";
  request.pause = [](double) {};
  request.others = {{&mirror}};
  std::optional<std::uint64_t> step;
  request.load = [&](const VersionReader& reader) {
    const auto read = read_step(reader);
    if (read) step = *read;
    return read.status();
  };
  return RunWriter::open(*home, request) ? step : std::nullopt;
}

std::vector<std::string> payload(const Store& store) { return *store.list("data"); }

/// Replaces an object, as an interrupted writer or a damaged disk would.
void overwrite(Store& store, const std::string& name, const std::string& bytes) {
  REQUIRE(store.remove(name).ok());
  auto object = store.create(name, bytes.size());
  REQUIRE(object.ok());
  for (std::size_t done = 0; done < bytes.size();) {
    auto room = (*object)->buffer();
    const auto piece = std::min(room.size(), bytes.size() - done);
    std::memcpy(room.data(), bytes.data() + done, piece);
    REQUIRE((*object)->advance(piece).ok());
    done += piece;
  }
  REQUIRE((*object)->finish().ok());
}

}  // namespace

TEST_CASE("mirrored_version_resumes_where_the_home_is_lost") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  save(session, 1);
  const Uid second = save(session, 2);
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.open().ok());
  CHECK_FALSE(resumed_from(*far));
  const auto mirrored = mirror.copy(second);
  REQUIRE(mirrored.ok());
  CHECK(mirrored->bytes > 0);
  CHECK(mirrored->dropping.ok());
  CHECK(resumed_from(*far) == 2);
  SECTION("what is there is not copied again") {
    const auto again = mirror.copy(second);
    REQUIRE(again.ok());
    CHECK(again->bytes == 0);
  }
  SECTION("the journal of the mirror has the session and its end, not what happened at home") {
    REQUIRE(session->note(NoteKind::verdict, {second}, "damaged", {}).ok());
    REQUIRE(session->note(NoteKind::close, {}, "finished", {}).ok());
    REQUIRE(mirror.open().ok());
    History history;
    REQUIRE(history.refresh(*far).ok());
    CHECK(history.opens().size() == 1);
    REQUIRE(history.notes().size() == 1);
    CHECK(history.notes().front().reason == "finished");
  }
}

TEST_CASE("mirror_says_what_its_store_guarantees") {
  const auto home = empty_store();
  WeakerStore far(empty_store());
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  Mirror mirror(*home, far, of(session));
  far.can.durable_put = true;
  CHECK(mirror.copy(uid)->durability == "fsynced");
  far.can.durable_put = false;
  CHECK(mirror.copy(uid)->durability == "process-safe");
}

TEST_CASE("session_that_another_machine_took_over_copies_nothing_more") {
  const auto home = empty_store(), far = empty_store(), other_home = empty_store();
  auto session = open_run(*home);
  const Uid first = save(session, 1);
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.copy(first).ok());

  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  request.host = "other-host";
  request.others = {{far.get()}};
  auto other = RunWriter::open(*other_home, request);
  REQUIRE(other.ok());
  CHECK((*other)->base() == first);
  Mirror others_mirror(*other_home, *far, {.session = {2, "bbbbbbbb"}});
  REQUIRE(others_mirror.open().ok());

  const Uid second = save(session, 2);  // its own home does not know the other session
  const auto refused = mirror.copy(second);
  CHECK(refused.code() == StatusCode::superseded);
  CHECK(refused.status().message().find("other-host") != std::string::npos);
  CHECK(payload(*far).size() == 1);
  CHECK(mirror.open().code() == StatusCode::superseded);
}

TEST_CASE("remainders_of_interrupted_copies_are_replaced") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const Uid uid = save(session, 7);
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.copy(uid).ok());
  const std::string file = payload(*far).front();
  const std::string whole = *far->get(file);
  const std::string manifest = entry_name(uid, EntryKind::save);
  SECTION("a part of the payload") { overwrite(*far, file, whole.substr(0, whole.size() / 2)); }
  SECTION("payload with a wrong byte") {
    std::string wrong = whole;
    wrong.back() ^= 1;
    overwrite(*far, file, wrong);
  }
  SECTION("a part of the manifest") { overwrite(*far, manifest, far->get(manifest)->substr(0, 100)); }
  SECTION("a part of the open entry") {
    const std::string open = entry_name(session->uid(), EntryKind::open);
    overwrite(*far, open, far->get(open)->substr(0, 20));
    REQUIRE(Mirror(*home, *far, of(session)).open().ok());
    CHECK(*far->get(open) == *home->get(open));
  }
  REQUIRE(mirror.copy(uid).ok());
  CHECK(resumed_from(*far) == 7);
}

TEST_CASE("mirror_that_does_not_give_back_what_was_written_never_holds_the_version") {
  class Liar final : public ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
      if (!name.starts_with("data/")) return ForwardingStore::open(name);
      auto whole = ForwardingStore::open(name);
      if (!whole) return whole;
      return std::unique_ptr<ObjectReader>(std::make_unique<Zeros>((*whole)->bytes()));
    }

   private:
    struct Zeros final : ObjectReader {
      explicit Zeros(std::uint64_t bytes) : bytes_(bytes) {}
      std::uint64_t bytes() const override { return bytes_; }
      Status read(std::uint64_t, std::span<std::byte> into) const override {
        std::fill(into.begin(), into.end(), std::byte{0});
        return {};
      }
      std::uint64_t bytes_;
    };
  };
  const auto home = empty_store();
  Liar far(empty_store());
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  Mirror mirror(*home, far, of(session));
  CHECK(mirror.copy(uid).code() == StatusCode::unreadable);
  CHECK(mirror.copy(uid).code() == StatusCode::unreadable);
  History history;
  REQUIRE(history.refresh(far).ok());
  CHECK(history.versions().empty());
}

TEST_CASE("read_error_in_the_mirror_removes_nothing_there") {
  class Failing final : public ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    Result<std::unique_ptr<ObjectReader>> open(const std::string& name) const override {
      auto whole = ForwardingStore::open(name);
      if (!whole || !fails || !name.starts_with("data/")) return whole;
      return std::unique_ptr<ObjectReader>(std::make_unique<Broken>((*whole)->bytes()));
    }
    Status remove(const std::string& name) override {
      ++removals;
      return ForwardingStore::remove(name);
    }
    bool fails = false;
    int removals = 0;

   private:
    struct Broken final : ObjectReader {
      explicit Broken(std::uint64_t bytes) : bytes_(bytes) {}
      std::uint64_t bytes() const override { return bytes_; }
      Status read(std::uint64_t, std::span<std::byte>) const override { return {StatusCode::unreadable, "EIO"}; }
      std::uint64_t bytes_;
    };
  };
  const auto home = empty_store();
  Failing far(empty_store());
  auto session = open_run(*home);
  const Uid uid = save(session, 4);
  Mirror mirror(*home, far, of(session));
  REQUIRE(mirror.copy(uid).ok());
  far.fails = true;
  CHECK(mirror.copy(uid).code() == StatusCode::unreadable);
  far.fails = false;
  CHECK(far.removals == 0);
  CHECK(resumed_from(far) == 4);
}

TEST_CASE("payload_of_a_session_that_the_mirror_does_not_know_is_not_a_remainder") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.copy(save(session, 1)).ok());
  const std::string late = payload_name({{60, "ffffffff"}, 0, 1});  // its open entry is still on the way
  overwrite(*far, late, "a part");
  REQUIRE(mirror.copy(save(session, 2)).ok());
  CHECK(far->get(late).ok());
}

TEST_CASE("mirror_whose_folder_vanished_is_not_taken_for_a_version_that_home_dropped") {
  class Gone final : public ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes,
                                                bool durable) override {
      if (name.ends_with(".save.json")) return Status(StatusCode::not_found, "journal/ is gone");
      return ForwardingStore::stage(name, bytes, durable);
    }
  };
  const auto home = empty_store();
  Gone far(empty_store());
  auto session = open_run(*home);
  CHECK(Mirror(*home, far, of(session)).copy(save(session, 1)).code() == StatusCode::unreadable);
}

TEST_CASE("damaged_payload_is_not_mirrored") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  const std::string file = payload(*home).front();
  std::string wrong = *home->get(file);
  wrong[wrong.size() / 2] ^= 1;
  overwrite(*home, file, wrong);
  Mirror mirror(*home, *far, of(session));
  const auto mirrored = mirror.copy(uid);
  CHECK(mirrored.code() == StatusCode::corrupt);
  CHECK(mirrored.status().message().find(file) != std::string::npos);
  CHECK(payload(*far).empty());
  CHECK_FALSE(resumed_from(*far));
}

TEST_CASE("mirror_that_is_the_home_by_another_name_is_refused") {
  const auto image = make_memory_image();
  const auto home = open_memory_store(image), same = open_memory_store(image);
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  Mirror mirror(*home, *same, of(session));
  CHECK(mirror.open().code() == StatusCode::invalid);
  CHECK(mirror.copy(uid).code() == StatusCode::invalid);

  const auto other = empty_store();
  Mirror first(*home, *other, of(session)), twin(*home, *other, of(session));
  REQUIRE(first.copy(uid).ok());
  CHECK(twin.copy(uid).code() == StatusCode::invalid);
  CHECK(first.open().ok());
}

TEST_CASE("version_that_home_dropped_is_not_found") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const Uid first = save(session, 1);
  save(session, 2);
  REQUIRE(session->drop({first}, "test").ok());
  CHECK(Mirror(*home, *far, of(session)).copy(first).code() == StatusCode::not_found);
}

TEST_CASE("mirror_keeps_its_own_last_versions_and_no_remainders") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  MirrorOptions options = of(session);
  options.retention.keep_last = 2;
  Mirror mirror(*home, *far, options);
  REQUIRE(mirror.copy(save(session, 1)).ok());
  overwrite(*far, payload_name({{500, "aaaaaaaa"}, 0, 1}), "a part");
  std::vector<Uid> versions;
  for (const std::uint64_t step : {2, 3, 4}) {
    versions.push_back(save(session, step));
    REQUIRE(mirror.copy(versions.back()).ok());
  }
  History history;
  REQUIRE(history.refresh(*far).ok());
  REQUIRE(history.versions().size() == 2);
  CHECK(history.versions().back().uid == versions.back());
  CHECK(payload(*far).size() == 2);
  CHECK(resumed_from(*far) == 4);
}

TEST_CASE("mirror_keeps_the_end_of_the_line_that_another_machine_continued_apart") {
  const auto far = empty_store(), first_home = empty_store(), second_home = empty_store();
  auto first = open_run(*first_home);
  Mirror first_mirror(*first_home, *far, of(first));
  const Uid common = save(first, 1);
  REQUIRE(first_mirror.copy(common).ok());
  const Uid apart = save(first, 2);

  // The second machine begins from the common version, and cannot reach the mirror until the first has copied more.
  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  request.others = {{far.get()}};
  Opened second{RunWriter::open(*second_home, request), {}, {}, {}};
  REQUIRE(second.ok());
  CHECK(second->base() == common);
  REQUIRE(first_mirror.copy(apart).ok());
  MirrorOptions options = of(second);
  options.retention.keep_last = 1;
  Mirror second_mirror(*second_home, *far, options);
  for (const std::uint64_t step : {10, 11, 12}) {
    const auto mirrored = second_mirror.copy(save(second, step));
    REQUIRE(mirrored.ok());
    CHECK(mirrored->other_lines == std::set<Uid>{apart});
  }
  History history;
  REQUIRE(history.refresh(*far).ok());
  CHECK(history.versions().size() == 2);
  CHECK(history.has_version(apart));
  CHECK(resumed_from(*far) == 12);
}

TEST_CASE("torn_entry_of_a_home_that_was_copied_by_hand_replaces_nothing_in_the_mirror") {
  const auto home = empty_store(), far = empty_store();
  const auto open_name = [&] { return home->list("journal")->front(); };
  {
    auto session = open_run(*home);
    Mirror mirror(*home, *far, of(session));
    REQUIRE(mirror.copy(save(session, 1)).ok());
  }
  const std::string whole = *far->get(open_name());
  overwrite(*home, open_name(), whole.substr(0, whole.size() / 2));
  auto session = open_run(*home, {.session = "bbbbbbbb"});
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.copy(save(session, 2)).ok());
  CHECK(*far->get(open_name()) == whole);
}

TEST_CASE("session_that_another_one_took_over_at_home_copies_nothing_more") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  Mirror mirror(*home, *far, of(session));
  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  request.take_over = true;
  REQUIRE(RunWriter::open(*home, request).ok());
  CHECK(mirror.copy(uid).code() == StatusCode::superseded);
  CHECK(far->list("journal")->size() == 1);
}

TEST_CASE("cancelled_copy_continues_later") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const Uid uid = save(session, 1);
  bool cancelled = true;
  MirrorOptions options = of(session);
  options.proceed = [&](std::uint64_t) { return !cancelled; };
  Mirror mirror(*home, *far, options);
  CHECK(mirror.copy(uid).code() == StatusCode::incomplete);
  CHECK_FALSE(resumed_from(*far));
  cancelled = false;
  REQUIRE(mirror.copy(uid).ok());
  CHECK(resumed_from(*far) == 1);
}

TEST_CASE("mirror_killed_before_any_step_holds_whole_versions_only") {
  class Killed final : public ObservedSteps {
   public:
    void reached(std::string_view step) override {
      if (step.substr(0, 2) == before) throw std::runtime_error("killed");
    }
    std::string before;
  };
  for (const std::string step : {"M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8"}) {
    for (const bool is_same_session : {true, false}) {
      CAPTURE(step, is_same_session);
      const auto home = empty_store(), far = empty_store();
      auto session = open_run(*home);
      Killed steps;
      MirrorOptions options = of(session);
      options.retention.keep_last = 1;
      options.steps = &steps;
      Mirror mirror(*home, *far, options);
      REQUIRE(mirror.copy(save(session, 1)).ok());
      steps.before = step;
      CHECK_THROWS(mirror.copy(save(session, 2)));
      CHECK(resumed_from(*far) == (step > "M5" ? 2 : 1));
      steps.before.clear();
      if (!is_same_session) options.session = {session->order().epoch + 1, "bbbbbbbb"};
      Mirror later(*home, *far, options);
      REQUIRE((is_same_session ? mirror : later).copy(save(session, 3)).ok());
      CHECK(resumed_from(*far) == 3);
      CHECK(payload(*far).size() == 1);
    }
  }
}

TEST_CASE("hints_tell_what_each_mirror_held_and_damaged_ones_are_left_out") {
  const auto home = empty_store();
  const MirrorHint drive{"/drive/run", {{{7, "aaaaaaaa"}, "process-safe"}}}, disk{"/disk/run", {}};
  REQUIRE(write_mirror_hint(*home, drive).ok());
  REQUIRE(write_mirror_hint(*home, disk).ok());
  REQUIRE(write_mirror_hint(*home, drive).ok());
  REQUIRE(home->put("hints/00000000.mirror", "{").ok());
  const auto hints = read_mirror_hints(*home);
  REQUIRE(hints.size() == 2);
  CHECK(hints[0].place == "/disk/run");
  CHECK(hints[1].versions == drive.versions);
}

TEST_CASE("metrics_and_logs_of_a_session_arrive_at_its_end") {
  const auto home = empty_store(), far = empty_store();
  auto session = open_run(*home);
  const std::string name = metrics_name(session->uid());
  REQUIRE(home->append(name, "{\"step\":1}\n").ok());
  Mirror mirror(*home, *far, of(session));
  REQUIRE(mirror.open().ok());
  REQUIRE(mirror.copy_records().ok());
  CHECK(*far->get(name) == "{\"step\":1}\n");
  REQUIRE(home->append(name, "{\"step\":2}\n").ok());
  REQUIRE(mirror.copy_records().ok());
  CHECK(*far->get(name) == "{\"step\":1}\n{\"step\":2}\n");
}
