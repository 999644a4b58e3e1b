// A run is resumed from the newest version of all its places, and never silently from scratch or from an older version
// because one of them cannot be read.
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/memory_store.h"
#include "holdfast/storage/tiers/mirror.h"
#include "storage/forwarding_store.h"
#include "storage/run_fixture.h"

using namespace holdfast::storage;
using namespace run_fixture;

namespace {

std::unique_ptr<Store> empty_store() { return open_memory_store(make_memory_image()); }

/// A session that knows other places.
struct Resumed {
  Result<std::unique_ptr<RunWriter>> writer = Status(StatusCode::invalid, "");
  std::optional<std::uint64_t> step = {};
  std::vector<std::string> said = {};
};

Resumed resume(Store& home, std::vector<OtherPlace> others, const std::string& session = "bbbbbbbb") {
  Resumed resumed;
  OpenRequest request;
  request.run = "test";
  request.session = session;
  request.host = "host";
  request.pause = [](double) {};
  request.others = std::move(others);
  const auto said = std::make_shared<std::vector<std::string>>();  // shared, because the writer may report later
  request.say = [said](const std::string& line) { said->push_back(line); };
  request.load = [&](const VersionReader& reader) {
    const auto read = read_step(reader);
    if (read) resumed.step = *read;
    return read.status();
  };
  resumed.writer = RunWriter::open(home, request);
  resumed.said = *said;
  return resumed;
}

/// A run with versions of these steps.
std::unique_ptr<Store> run_with(const std::vector<std::uint64_t>& steps, const std::string& session = "aaaaaaaa") {
  auto store = empty_store();
  auto opened = open_run(*store, {.session = session});
  for (const std::uint64_t step : steps) REQUIRE(opened->save(version(step)).ok());
  return store;
}

void damage_newest_payload(Store& store) {
  const std::string name = store.list("data")->back();
  REQUIRE(store.remove(name).ok());
}

}  // namespace

TEST_CASE("newest_version_of_all_places_is_resumed") {
  const auto home = run_with({1});
  const auto ahead = empty_store();
  {
    auto session = resume(*ahead, {{home.get()}}, "a1a1a1a1");
    REQUIRE(session.step == 1);
    CHECK((*session.writer)->base_place() == home.get());
    REQUIRE((*session.writer)->save(version(5)).ok());
  }
  auto session = resume(*home, {{ahead.get()}});
  CHECK(session.step == 5);
  REQUIRE(session.writer.ok());
  CHECK((*session.writer)->base_place() == ahead.get());
  REQUIRE((*session.writer)->save(version(6)).ok());
  session.writer->reset();  // it locks the run
  {
    const auto both = resume(*home, {{ahead.get()}}, "cccccccc");
    CHECK(both.step == 6);
    CHECK((*both.writer)->base_place() == home.get());
  }
  CHECK(resume(*home, {}, "dddddddd").step == 6);  // home alone has what was saved since
}

TEST_CASE("damaged_version_is_read_from_another_place_before_an_older_one") {
  const auto home = run_with({1, 2}), same = run_with({1, 2});
  damage_newest_payload(*home);
  CHECK(resume(*home, {}, "b0b0b0b0").step == 1);
  const auto damaged = run_with({1, 2});
  damage_newest_payload(*damaged);
  const auto session = resume(*damaged, {{same.get()}});
  CHECK(session.step == 2);
  REQUIRE(session.said.size() == 1);
  CHECK(session.said.front().find(same->location()) != std::string::npos);
  CHECK((*session.writer)->read((*session.writer)->base().value()).ok());
}

TEST_CASE("place_that_cannot_be_read_is_reported_and_prevents_a_start_from_scratch") {
  const Status gone(StatusCode::not_found, "/drive is not there");
  const auto home = empty_store(), far = empty_store();
  const auto refused = resume(*home, {{far.get(), gone}});
  CHECK(refused.writer.code() == StatusCode::unreadable);
  CHECK(refused.writer.status().message().find("/drive is not there") != std::string::npos);
  CHECK(refused.writer.status().message().find("--holdfast.fresh") != std::string::npos);
  CHECK(home->list("journal")->empty());

  const auto with_versions = run_with({3});
  const auto session = resume(*with_versions, {{far.get(), gone}});
  CHECK(session.step == 3);
  REQUIRE(session.said.size() == 1);
  CHECK(session.said.front().find("/drive is not there") != std::string::npos);
}

TEST_CASE("version_that_a_place_dropped_is_not_read_there") {
  const auto far = empty_store();
  Uid first;
  {
    auto session = open_run(*far);
    first = session->save(version(1))->uid;
    REQUIRE(session->save(version(2)).ok());
    Note drop;
    drop.uid = {9, "aaaaaaaa"};
    drop.kind = NoteKind::drop;
    drop.about = {first};
    const auto text = encode_checked(drop);
    auto staged = far->stage(entry_name(drop.uid, EntryKind::note), *text);
    REQUIRE((*staged)->publish().ok());
  }
  const auto home = empty_store();
  OpenRequest request;
  request.run = "test";
  request.session = "bbbbbbbb";
  request.from = first.text();
  request.others = {{far.get()}};
  CHECK_FALSE(RunWriter::open(*home, request).ok());
  CHECK(resume(*home, {{far.get()}}).step == 2);
}

TEST_CASE("epoch_and_numbers_exceed_those_of_every_place") {
  const auto far = empty_store();
  for (const char* session : {"a0a0a0a0", "a1a1a1a1", "a2a2a2a2"}) {
    auto opened = open_run(*far, {.session = session});
    REQUIRE(opened->save(version(1)).ok());
  }
  History there;
  REQUIRE(there.refresh(*far).ok());
  const auto home = empty_store();
  const auto session = resume(*home, {{far.get()}});
  REQUIRE(session.writer.ok());
  CHECK((*session.writer)->uid().seq > there.highest_seq());
  History here;
  REQUIRE(here.refresh(*home).ok());
  CHECK(here.highest_epoch() == there.highest_epoch() + 1);
}

TEST_CASE("place_that_fails_after_it_was_listed_does_not_lead_to_an_older_version") {
  class FailsLater final : public ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    Result<std::vector<std::string>> list(const std::string& folder) const override {
      if (++lists > 2) return Status(StatusCode::unreadable, "/drive failed");  // data/ and journal/ in O1
      return ForwardingStore::list(folder);
    }
    mutable int lists = 0;
  };
  const auto home = run_with({1});
  auto ahead = empty_store();
  {
    auto session = resume(*ahead, {{home.get()}}, "a1a1a1a1");
    REQUIRE((*session.writer)->save(version(5)).ok());
  }
  const FailsLater place(std::move(ahead));
  const auto session = resume(*home, {{&place}});
  REQUIRE(session.writer.ok());
  CHECK(place.lists > 2);
  CHECK(session.step == 5);
}

TEST_CASE("session_is_announced_in_its_mirrors_before_it_decides") {
  const auto home = empty_store(), far = empty_store();
  const auto session = resume(*home, {{far.get(), {}, far.get()}});
  REQUIRE(session.writer.ok());
  History there;
  REQUIRE(there.refresh(*far).ok());
  REQUIRE(there.opens().size() == 1);
  CHECK(there.opens().front().uid == (*session.writer)->uid());
  SECTION("what another session copies there in the meantime is found") {
    class Late final : public ForwardingStore {
     public:
      using ForwardingStore::ForwardingStore;
      Result<std::unique_ptr<StagedObject>> stage(const std::string& name, std::string_view bytes,
                                                  bool durable) override {
        auto session = open_run(*other, {.session = "eeeeeeee"});  // its version arrives before our entry
        REQUIRE(session->save(version(9)).ok());
        return ForwardingStore::stage(name, bytes, durable);
      }
      Store* other = nullptr;
    };
    const auto image = make_memory_image();
    const auto other = open_memory_store(image);
    Late mirror(open_memory_store(image));
    mirror.other = other.get();
    const auto fresh_home = empty_store();
    const auto late = resume(*fresh_home, {{&mirror, {}, &mirror}});
    // The other session took over, as its epoch and ours are equal and its name is later.
    CHECK(late.writer.code() == StatusCode::superseded);
  }
}

TEST_CASE("mirror_that_is_the_home_by_another_name_ends_the_opening") {
  const auto image = make_memory_image();
  const auto home = open_memory_store(image), same = open_memory_store(image);
  const auto session = resume(*home, {{same.get(), {}, same.get()}});
  CHECK(session.writer.code() == StatusCode::invalid);
  CHECK(session.writer.status().message().find(same->location()) != std::string::npos);
}

TEST_CASE("version_that_home_dropped_is_resumed_from_a_place_that_kept_it") {
  const auto home = empty_store(), far = empty_store();
  Uid first;
  {
    auto session = open_run(*home);
    first = session->save(version(1))->uid;
    MirrorOptions options;
    options.session = session->order();
    REQUIRE(Mirror(*home, *far, options).copy(first).ok());
    REQUIRE(session->save(version(2)).ok());
    REQUIRE(session->drop({first}, "test").ok());
  }
  damage_newest_payload(*home);
  CHECK(resume(*home, {{far.get()}}).step == 1);
}

TEST_CASE("work_that_only_home_has_is_reported_and_kept_when_another_line_is_later") {
  const auto far = empty_store();
  const auto home = run_with({1});
  for (const char* session : {"a1a1a1a1", "a2a2a2a2"}) {  // another machine continues, twice
    auto other = resume(*far, {{home.get()}}, session);
    REQUIRE((*other.writer)->save(version(5)).ok());
  }
  Uid apart;
  {
    auto alone = resume(*home, {{far.get(), Status(StatusCode::unreadable, "not mounted")}}, "b0b0b0b0");
    const auto saved = (*alone.writer)->save(version(50));
    REQUIRE(saved.ok());
    apart = saved->uid;
  }
  auto session = resume(*home, {{far.get()}}, "cccccccc");
  CHECK(session.step == 5);
  REQUIRE(session.said.size() == 1);
  CHECK(session.said.front().find("--holdfast.from " + apart.short_text()) != std::string::npos);
  for (const std::uint64_t step : {6, 7, 8}) {
    REQUIRE((*session.writer)->save(version(step)).ok());
    REQUIRE((*session.writer)->prune({.keep_last = 1}).ok());
  }
  session.writer->reset();  // it locks the run
  auto next = resume(*home, {{far.get()}}, "dddddddd");
  CHECK(next.step == 8);
  CHECK(next.said.empty());
  REQUIRE((*next.writer)->save(version(9)).ok());
  REQUIRE((*next.writer)->prune({.keep_last = 1}).ok());
  History here;
  REQUIRE(here.refresh(*home).ok());
  CHECK(here.has_version(apart));
}
