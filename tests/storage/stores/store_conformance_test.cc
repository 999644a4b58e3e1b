// One suite that every driver passes. A driver's deviations are its capability flags: if a driver does not set a flag
// that a case needs, the case checks the meaning of the flag's absence instead.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/string_file.hpp>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/memory_store.h"
#include "storage/forwarding_files.h"
#include "storage/scratch_folder.h"

using namespace holdfast::storage;

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

std::string pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>((i * 2654435761U) >> 13);
  return text;
}

Status write_object(Store& store, const std::string& name, const std::string& bytes, std::size_t piece) {
  auto writer = store.create(name, bytes.size());
  if (!writer) return writer.status();
  for (std::size_t done = 0; done < bytes.size();) {
    const auto buffer = (*writer)->buffer();
    REQUIRE(buffer.size() > 0);
    const std::size_t n = std::min({buffer.size(), bytes.size() - done, piece});
    std::memcpy(buffer.data(), bytes.data() + done, n);
    if (Status status = (*writer)->advance(n); !status.ok()) return status;
    done += n;
  }
  return (*writer)->finish();
}

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

TEST_CASE("a_read_only_store_reads_and_refuses_to_write") {
  ScratchFolder folder;
  {
    const auto store = open_file_store(folder / "run");
    REQUIRE(store->prepare().ok());
    REQUIRE(write_object(*store, "data/a", "x", 1).ok());
  }
  const auto store = open_file_store(folder / "run", {.read_only = true});
  CHECK(*store->get("data/a") == "x");
  CHECK(store->prepare().code() == StatusCode::read_only);
  CHECK(write_object(*store, "data/b", "x", 1).code() == StatusCode::read_only);
  CHECK(store->remove("data/a").code() == StatusCode::read_only);
  CHECK(store->put("hints/a", "x").code() == StatusCode::read_only);
  CHECK(*store->get("data/a") == "x");
}

TEST_CASE("folders_that_cannot_be_used_are_named_with_the_remedy") {
  ScratchFolder folder;
  SECTION("the parent's parent is missing") {
    const Status status = open_file_store(folder / "no" / "such" / "run")->prepare();
    CHECK(status.code() == StatusCode::not_found);
    CHECK(status.message() == "there is no folder " + (folder / "no").string() +
                                  " to make such in; make it, mount it, or choose another folder with --holdfast.dir");
    CHECK_FALSE(boost::filesystem::exists(folder / "no"));
  }
  SECTION("the parent is missing") { CHECK(open_file_store(folder / "runs" / "run")->prepare().ok()); }
  SECTION("a file is in the way") {
    REQUIRE(open_file_store(folder / "run")->prepare().ok());
    REQUIRE(open_file_store(folder / "run")->put("hints/file", "x").ok());
    const Status status = open_file_store(folder / "run" / "hints" / "file")->prepare();
    CHECK(status.code() == StatusCode::invalid);
    CHECK(status.message().find("is a file where a folder is needed") != std::string::npos);
  }
  SECTION("a link leads nowhere") {
    boost::filesystem::create_symlink("/mnt/gone", folder / "runs");
    for (const Path& run : {folder / "runs" / "run", folder / "runs" / "deeper" / "run"}) {
      const Status status = open_file_store(run)->prepare();
      CHECK(status.code() == StatusCode::not_found);
      CHECK(status.message().find((folder / "runs").string() + " is a link to /mnt/gone, which is not there; ") !=
            std::string::npos);
    }
    boost::filesystem::create_symlink("round", folder / "round");
    CHECK(open_file_store(folder / "round")->prepare().message().find("leads in a circle") != std::string::npos);
  }
  SECTION("the folder of runs is a run itself") {
    const auto run = open_file_store(folder / "spiral");
    REQUIRE(run->prepare().ok());
    const Path inside = folder / "spiral" / "spiral";
    REQUIRE(open_file_store(inside)->prepare().ok());  // nothing was saved there yet, so it may be any folder
    boost::filesystem::remove_all(inside);
    REQUIRE(run->put("journal/000001-aaaaaaaa.open.json", "").ok());
    const Status status = open_file_store(inside)->prepare();
    CHECK(status.code() == StatusCode::invalid);
    CHECK(status.message() == (folder / "spiral").string() +
                                  " is itself a run, not a folder of runs: give the folder that holds it, "
                                  "--holdfast.dir " +
                                  folder.path().string());
    CHECK_FALSE(boost::filesystem::exists(inside));
    CHECK(open_file_store(folder / "spiral" / "other")->prepare().message().find("with --holdfast.run spiral") !=
          std::string::npos);
    boost::filesystem::create_directories(inside / "journal");  // the inner run already exists
    CHECK(open_file_store(inside)->prepare().ok());
    // A run beside others, one in a folder of its own name, and a foreign journal.
    boost::filesystem::create_directories(folder / "tulip" / "journal");
    for (const char* other : {"rose", "tulip/tulip"}) CHECK(open_file_store(folder / other)->prepare().ok());
  }
  SECTION("the path is too long") {
    const Status status = open_file_store(folder / std::string(300, 'x'))->prepare();
    CHECK(status.code() == StatusCode::name_too_long);
    CHECK(status.message().find("choose a shorter run name") != std::string::npos);
  }
}

TEST_CASE("a_file_system_that_vouches_for_nothing_claims_nothing") {
  class Unsynced final : public ForwardingFiles {
   public:
    int mount_info(const Path& path, MountInfo& info) override {
      const int result = ForwardingFiles::mount_info(path, info);
      info.sync_is_durable = false;
      return result;
    }
  } fuse;
  class NoFolderSync final : public ForwardingFiles {
   public:
    int mount_info(const Path& path, MountInfo& info) override {
      const int result = ForwardingFiles::mount_info(path, info);
      info.sync_is_durable = true;
      return result;
    }
    int open(const Path& path, int flags, int mode) override {
      const int fd = ForwardingFiles::open(path, flags, mode);
      if ((flags & O_DIRECTORY) != 0) folder_ = fd;
      return fd;
    }
    int sync(int fd) override { return fd == folder_ ? -EINVAL : ForwardingFiles::sync(fd); }

   private:
    int folder_ = -1;
  } no_folder_sync;
  ScratchFolder folder;
  const auto a = open_file_store(folder / "a", {}, fuse);
  REQUIRE(a->prepare().ok());
  CHECK_FALSE(a->capabilities().durable_put);
  const auto b = open_file_store(folder / "b", {}, no_folder_sync);
  REQUIRE(b->prepare().ok());
  CHECK_FALSE(b->capabilities().durable_put);
}

TEST_CASE("a_failure_in_the_writing_thread_reaches_the_caller") {
  class FullDisk final : public ForwardingFiles {
   public:
    std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override {
      return offset >= (std::uint64_t{16} << 20) ? -ENOSPC : ForwardingFiles::write(fd, from, bytes, offset);
    }
  } full;
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run", {}, full);
  REQUIRE(store->prepare().ok());
  const Status status = write_object(*store, "data/a", pattern(std::size_t{60} << 20), std::size_t{1} << 20);
  CHECK(status.code() == StatusCode::no_space);
  CHECK(status.message().find("the disk is full (60 MiB are needed") != std::string::npos);
  CHECK(status.message().find("data/a") != std::string::npos);
  CHECK(store->list("data")->empty());
}

TEST_CASE("the_umask_alone_decides_who_may_write") {
  const mode_t before = ::umask(0002);
  ScratchFolder folder;
  {
    const auto store = open_file_store(folder / "runs" / "run");
    REQUIRE(store->prepare().ok());
    REQUIRE(write_object(*store, "data/small", "x", 1).ok());
    REQUIRE(write_object(*store, "data/large", pattern(std::size_t{20} << 20), std::size_t{1} << 20).ok());
    auto staged = store->stage("journal/a", "x");
    REQUIRE(staged.ok());
    REQUIRE((*staged)->publish().ok());
    REQUIRE(store->put("hints/a", "x").ok());
    REQUIRE(store->append("logs/a", "x").ok());
    REQUIRE(store->lock("pid 7").ok());
  }
  ::umask(before);
  std::size_t files = 0;
  for (const auto& entry : boost::filesystem::recursive_directory_iterator(folder / "runs")) {
    const bool is_folder = boost::filesystem::is_directory(entry.path());
    const auto mode = boost::filesystem::status(entry.path()).permissions();
    CHECK((entry.path().string() + (mode == (is_folder ? 0775 : 0664) ? "" : " is closed to the group")) ==
          entry.path().string());
    if (!is_folder) ++files;
  }
  CHECK(files == 7);
}

TEST_CASE("an_object_has_the_length_of_the_file_that_was_opened") {
  class Replaced final : public ForwardingFiles {  // another file gets the name right after the file was opened
   public:
    int open(const Path& path, int flags, int mode) override {
      const int fd = ForwardingFiles::open(path, flags, mode);
      if (path.filename() == "a" && (flags & O_CREAT) == 0) {
        boost::filesystem::remove(path);
        boost::filesystem::save_string_file(path, "x");
      }
      return fd;
    }
  } files;
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run", {}, files);
  REQUIRE(store->prepare().ok());
  REQUIRE(write_object(*store, "data/a", "long enough", 11).ok());
  CHECK(*store->get("data/a") == "long enough");
}
