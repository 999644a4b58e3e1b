// One suite that every driver passes. A driver's deviations are its capability flags: if a driver does not set a flag
// that a case needs, the case checks the meaning of the flag's absence instead.
#include <cerrno>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/forwarding_files.h"
#include "storage/scratch_folder.h"
#include "written_objects.h"

using namespace holdfast::storage;
using written_objects::pattern;
using written_objects::write_object;

namespace {

// Refuses operations that some file systems lack.
class PoorFiles final : public ForwardingFiles {
 public:
  PoorFiles(bool links, bool renames) : links_(links), renames_(renames) {}
  int link(const Path& from, const Path& to) override { return links_ ? ForwardingFiles::link(from, to) : -EPERM; }
  int rename_exclusive(const Path& from, const Path& to) override {
    return renames_ ? ForwardingFiles::rename_exclusive(from, to) : -EINVAL;
  }

 private:
  const bool links_;
  const bool renames_;
};

struct Driver {
  std::string name;
  std::function<std::unique_ptr<Store>()> open;  // the same run each time
};

struct Drivers {
  ScratchFolder folder;
  PoorFiles no_links{false, true};
  PoorFiles no_renames{false, false};
  std::shared_ptr<MemoryImage> image = make_memory_image();

  std::vector<Driver> all() {
    return {
        {"memory", [&] { return open_memory_store(image); }},
        {"file, by link", [&] { return open_file_store(folder / "link"); }},
        {"file, by exclusive rename", [&] { return open_file_store(folder / "rename", {}, no_links); }},
        {"file, in place", [&] { return open_file_store(folder / "in_place", {}, no_renames); }},
        {"file, buffered", [&] { return open_file_store(folder / "buffered", {.direct_io = false}); }},
    };
  }
};

template <class Check>
void on_every_driver(Check&& check) {
  Drivers drivers;
  for (const Driver& driver : drivers.all()) {
    INFO("driver: " << driver.name);
    const auto store = driver.open();
    const Status prepared = store->prepare();
    INFO(prepared.message());
    REQUIRE(prepared.ok());
    check(*store, driver);
  }
}

}  // namespace

TEST_CASE("store_gives_back_the_bytes_it_was_given") {
  on_every_driver([](Store& store, const Driver& driver) {
    // Around the block and buffer sizes of every driver: 4 KiB, 1 MiB (O_DIRECT), 8 MiB (thread).
    const std::size_t mib = std::size_t{1} << 20;
    int number = 0;
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{4097}, mib - 1, mib,
          mib + 1, 8 * mib - 1, 8 * mib, 8 * mib + 1, 41 * mib + 12345}) {
      const std::string name = "data/" + std::to_string(number++);
      const std::string text = pattern(bytes);
      INFO(bytes << " bytes");
      REQUIRE(write_object(store, name, text, 3 * mib + 17).ok());
      const auto again = driver.open();
      const auto read = again->get(name);
      REQUIRE(read.ok());
      REQUIRE(*read == text);
    }
  });
}

TEST_CASE("create_never_replaces_an_object") {
  on_every_driver([](Store& store, const Driver&) {
    REQUIRE(store.capabilities().create_only_enforced);
    REQUIRE(write_object(store, "data/a", "first", 5).ok());
    CHECK(write_object(store, "data/a", "second", 6).code() == StatusCode::already_exists);
    CHECK(*store.get("data/a") == "first");

    auto one = store.stage("journal/b", "one");
    REQUIRE((*one)->publish().ok());
    auto two = store.stage("journal/b", "two");
    CHECK((!two ? two.status() : (*two)->publish()).code() == StatusCode::already_exists);
    CHECK(*store.get("journal/b") == "one");
  });
}

TEST_CASE("of_many_publishers_of_one_name_exactly_one_succeeds") {
  on_every_driver([](Store& store, const Driver& driver) {
    constexpr int kRacers = 4;
    for (int round = 0; round < 20; ++round) {
      const std::string name = "journal/race-" + std::to_string(round);
      std::vector<std::unique_ptr<Store>> stores;
      std::vector<Status> outcomes(kRacers);
      std::vector<std::thread> racers;
      for (int i = 0; i < kRacers; ++i) stores.push_back(driver.open());
      for (int i = 0; i < kRacers; ++i) {
        racers.emplace_back([&, i] {
          // Each staged name belongs to one session, so each racer stages under its own and tries to publish.
          auto staged = stores[i]->stage(name, std::string(1, static_cast<char>('a' + i)));
          outcomes[i] = staged ? (*staged)->publish() : staged.status();
        });
      }
      for (std::thread& racer : racers) racer.join();
      int winners = 0;
      std::string winner;
      for (int i = 0; i < kRacers; ++i) {
        if (outcomes[i].ok()) ++winners, winner = std::string(1, static_cast<char>('a' + i));
      }
      REQUIRE(winners <= 1);
      if (winners == 1) REQUIRE(*store.get(name) == winner);
    }
  });
}

TEST_CASE("a_listing_shows_published_objects_only_sorted") {
  on_every_driver([](Store& store, const Driver& driver) {
    CHECK(store.list("journal")->empty());
    auto c = store.stage("journal/c", "c");
    auto a = store.stage("journal/a", "a");
    REQUIRE((*c)->publish().ok());
    auto waiting = store.stage("journal/b", "b");
    REQUIRE((*a)->publish().ok());
    REQUIRE(store.sync_folder("journal").ok());
    CHECK(*driver.open()->list("journal") == std::vector<std::string>{"journal/a", "journal/c"});
    CHECK(store.list("nowhere")->empty());
  });
}

TEST_CASE("what_was_staged_and_left_can_be_removed_by_session") {
  on_every_driver([](Store& store, const Driver& driver) {
    {
      auto mine = store.stage("journal/000001-aaaaaaaa.note.json", "x");
      auto theirs = store.stage("journal/000002-bbbbbbbb.note.json", "y");
      const auto other = driver.open();
      const auto removed = other->remove_staged([](std::string_view session) { return session == "aaaaaaaa"; });
      REQUIRE(removed.ok());
      CHECK(*removed <= 1);
      if (*removed == 1) CHECK((*mine)->publish().code() == StatusCode::not_found);
      CHECK((*theirs)->publish().ok());
    }
  });
}

TEST_CASE("ranges_are_read_exactly_and_never_past_the_end") {
  on_every_driver([](Store& store, const Driver&) {
    const std::string text = pattern(10'000);
    REQUIRE(write_object(store, "data/a", text, 4096).ok());
    auto reader = store.open("data/a");
    REQUIRE(reader.ok());
    CHECK((*reader)->bytes() == text.size());
    std::string part(100, '\0');
    const auto into = std::as_writable_bytes(std::span(part.data(), part.size()));
    REQUIRE((*reader)->read(4090, into).ok());
    CHECK(part == text.substr(4090, 100));
    CHECK((*reader)->read(9'901, into).code() == StatusCode::incomplete);
    CHECK((*reader)->read(1ULL << 40, into).code() == StatusCode::incomplete);
    CHECK(store.open("data/none").code() == StatusCode::not_found);
    CHECK(store.get("data/a", 9'999).code() == StatusCode::corrupt);
  });
}

TEST_CASE("removing_is_final_and_repeatable") {
  on_every_driver([](Store& store, const Driver&) {
    REQUIRE(write_object(store, "data/a", "x", 1).ok());
    REQUIRE(store.remove("data/a").ok());
    CHECK(store.open("data/a").code() == StatusCode::not_found);
    CHECK(store.remove("data/a").ok());
  });
}

TEST_CASE("mutable_objects_are_replaced_and_appended_to") {
  on_every_driver([](Store& store, const Driver&) {
    REQUIRE(store.put("hints/a", "long text").ok());
    REQUIRE(store.put("hints/a", "short").ok());
    CHECK(*store.get("hints/a") == "short");
    REQUIRE(store.append("metrics/a", "one\n").ok());
    REQUIRE(store.append("metrics/a", "two\n").ok());
    CHECK(*store.get("metrics/a") == "one\ntwo\n");
  });
}

TEST_CASE("a_second_holder_of_the_lock_is_told_who_the_first_is") {
  on_every_driver([](Store& store, const Driver& driver) {
    REQUIRE(store.capabilities().host_lock);
    const auto other = driver.open();
    {
      const auto first = store.lock("pid 7 on host here");
      REQUIRE(first.ok());
      const auto second = other->lock("pid 8");
      REQUIRE(second.code() == StatusCode::busy);
      CHECK(second.status().message() == "pid 7 on host here");
    }
    CHECK(other->lock("pid 8").ok());
  });
}

TEST_CASE("an_unfinished_object_leaves_nothing_behind") {
  on_every_driver([](Store& store, const Driver&) {
    {
      auto writer = store.create("data/a", 20 << 20);
      REQUIRE(writer.ok());
      REQUIRE((*writer)->advance((*writer)->buffer().size()).ok());
    }
    CHECK(store.list("data")->empty());
  });
}
