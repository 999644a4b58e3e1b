// What only the store in a folder has: folders that cannot be used, file systems that lack something, permissions.
#include "holdfast/storage/stores/file/file_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <fstream>
#include <string>

#include "catch.h"
#include "storage/forwarding_files.h"
#include "storage/run_fixture.h"
#include "storage/scratch_folder.h"
#include "written_objects.h"

using namespace holdfast::storage;
using written_objects::pattern;
using written_objects::write_object;

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
      CHECK(status.message().find((folder / "runs").string() + " is a link to /mnt/gone, which does not exist; ") !=
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

// google-drive-ocamlfuse and Colab's mount: no links, unreliable renames, trash that counts against the quota.
TEST_CASE("in_a_mounted_drive_files_are_only_created_and_removed") {
  class Drive final : public ForwardingFiles {
   public:
    int mount_info(const Path& path, MountInfo& info) override {
      const int asked = ForwardingFiles::mount_info(path, info);
      info.type = "fuse";
      info.sync_is_durable = false;
      info.creates_and_removes_only = true;
      return asked;
    }
    int link(const Path&, const Path&) override { return ++refused, -EPERM; }
    int rename_exclusive(const Path&, const Path&) override { return ++refused, -EINVAL; }
    int lock(int) override { return ++refused, -ENOSYS; }
    int unlink(const Path& path) override {
      FileInfo info;
      if (path.filename().string().front() != '.' && status(path, info) >= 0) removed_bytes += info.bytes;
      return ForwardingFiles::unlink(path);
    }
    int refused = 0;
    std::uint64_t removed_bytes = 0;
  } drive;
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run", {}, drive);
  auto session = run_fixture::open_run(*store);
  REQUIRE(session.ok());
  for (const std::uint64_t step : {1, 2, 3}) {
    const auto saved = session->save(run_fixture::version(step));
    REQUIRE(saved.ok());
    CHECK(saved->durability == "process-safe");
  }
  REQUIRE(session->prune({.keep_last = 1}).ok());
  CHECK(store->list("data")->size() == 1);
  CHECK(drive.refused == 0);
  CHECK(drive.removed_bytes == 0);
  CHECK(run_fixture::open_run(*store, {.session = "bbbbbbbb"}).step == 3);
}

TEST_CASE("an_abandoned_object_does_not_take_a_new_one_of_its_name_with_it") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  REQUIRE(store->prepare().ok());
  auto abandoned = store->create("data/a", 100);
  REQUIRE(abandoned.ok());
  REQUIRE(store->remove("data/a").ok());
  REQUIRE(write_object(*store, "data/a", "new", 3).ok());
  abandoned->reset();
  CHECK(*store->get("data/a") == "new");
}

TEST_CASE("a_drive_that_is_no_longer_mounted_is_not_an_empty_run") {
  ScratchFolder folder;
  const auto store = open_file_store(folder / "run");
  CHECK(store->list("journal")->empty());
  REQUIRE(store->prepare().ok());
  CHECK(store->list("journal")->empty());
  boost::filesystem::rename(folder / "run", folder / "elsewhere");
  const auto listed = store->list("journal");
  CHECK(listed.code() == StatusCode::unreadable);
  CHECK(listed.status().message().find("mounted") != std::string::npos);
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
        std::ofstream(path.string()) << "x";
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
