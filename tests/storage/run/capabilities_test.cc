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
