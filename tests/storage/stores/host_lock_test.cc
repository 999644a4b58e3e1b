// Two simultaneous starts on one host, each stopped between any two of its calls.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>

#include "catch.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "storage/forwarding_files.h"
#include "storage/scratch_folder.h"

using namespace holdfast::storage;

namespace {

constexpr const char* kLockName = "hints/session.lock";

/// Calls `here` once, before the file operation with the number `at`.
class StoppingFiles final : public ForwardingFiles {
 public:
  StoppingFiles(int at, std::function<void()> here) : at_(at), here_(std::move(here)) {}
  bool stopped() const { return stopped_; }
  void stop_no_more() { at_ = -1; }

  int open(const Path& path, int flags, int mode) override { return next(), ForwardingFiles::open(path, flags, mode); }
  int close(int fd) override { return next(), ForwardingFiles::close(fd); }
  std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) override {
    return next(), ForwardingFiles::read(fd, into, bytes, offset);
  }
  std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override {
    return next(), ForwardingFiles::write(fd, from, bytes, offset);
  }
  int truncate(int fd, std::uint64_t bytes) override { return next(), ForwardingFiles::truncate(fd, bytes); }
  int link(const Path& from, const Path& to) override { return next(), ForwardingFiles::link(from, to); }
  int rename_exclusive(const Path& from, const Path& to) override {
    return next(), ForwardingFiles::rename_exclusive(from, to);
  }
  int unlink(const Path& path) override { return next(), ForwardingFiles::unlink(path); }
  int status(const Path& path, FileInfo& info) override { return next(), ForwardingFiles::status(path, info); }
  int status_of(int fd, FileInfo& info) override { return next(), ForwardingFiles::status_of(fd, info); }
  int lock(int fd) override { return next(), ForwardingFiles::lock(fd); }
  int unlock(int fd) override { return next(), ForwardingFiles::unlock(fd); }

 private:
  void next() {
    if (calls_++ != at_) return;
    stopped_ = true;
    here_();
  }

  int at_;
  const std::function<void()> here_;
  int calls_ = 0;
  bool stopped_ = false;
};

/// The first start stops before its call `at_first`. The second one runs up to its call `at_second`. Then the first one
/// runs to its end, and the second one after it. This object holds their locks until it is destroyed.
class TwoStarts {
 public:
  TwoStarts(const Path& run, int at_first, int at_second)
      : first_files_(at_first, [this] { begin_second(); }), second_files_(at_second, [this] { let_first_end(); }) {
    first_store_ = open_file_store(run, {}, first_files_);
    second_store_ = open_file_store(run, {}, second_files_);
    first = first_store_->lock("pid 8");
    first_files_.stop_no_more();
    first_is_over_.release();
    if (thread_.joinable()) thread_.join();
  }
  bool first_stopped() const { return first_files_.stopped(); }
  bool second_stopped() const { return second_files_.stopped(); }

 private:
  void begin_second() {
    thread_ = std::thread([this] {
      second = second_store_->lock("pid 9");
      second_files_.stop_no_more();
      if (!second_stopped()) second_waits_.release();
    });
    second_waits_.acquire();
  }
  void let_first_end() {
    second_waits_.release();
    first_is_over_.acquire();
  }

  StoppingFiles first_files_, second_files_;
  std::unique_ptr<Store> first_store_, second_store_;
  std::binary_semaphore second_waits_{0}, first_is_over_{0};
  std::thread thread_;

 public:
  Result<std::unique_ptr<HostLock>> first{Status(StatusCode::invalid, "not started")};
  Result<std::unique_ptr<HostLock>> second{Status(StatusCode::invalid, "not started")};
};

/// The text of the lock's file after the death of a process that held the lock.
std::string text_of_the_dead(Store& store) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto held = store.lock("pid 7");
    ::_exit(held.ok() ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  REQUIRE(status == 0);
  return *store.get(kLockName);
}

}  // namespace

TEST_CASE("exactly_one_of_two_simultaneous_starts_gets_the_lock") {
  ScratchFolder folder;
  const Path run = folder / "run";
  const auto store = open_file_store(run);
  REQUIRE(store->prepare().ok());
  const std::string dead = text_of_the_dead(*store);
  enum class Left { nothing, a_file, a_file_that_a_child_keeps_locked };
  for (const Left left : {Left::nothing, Left::a_file, Left::a_file_that_a_child_keeps_locked}) {
    bool first_stopped = true;
    for (int at_first = 0; first_stopped; ++at_first) {
      bool second_stopped = true;
      for (int at_second = 0; second_stopped; ++at_second) {
        INFO("left " << static_cast<int>(left) << ", stopped at " << at_first << " and " << at_second);
        REQUIRE(store->remove(kLockName).ok());
        if (left != Left::nothing) REQUIRE(store->put(kLockName, dead).ok());
        int child = -1;  // the child's descriptor: processes can share the lock of an open file
        if (left == Left::a_file_that_a_child_keeps_locked) {
          child = system_files().open(run / kLockName, O_RDWR);
          REQUIRE(system_files().lock(child) == 0);
        }
        const TwoStarts starts(run, at_first, at_second);
        first_stopped = starts.first_stopped();
        second_stopped = first_stopped && starts.second_stopped();
        REQUIRE(starts.first.ok() + starts.second.ok() == 1);
        CHECK((*(starts.first.ok() ? starts.first : starts.second))->left_by() == (child < 0 ? "" : "pid 7"));
        CHECK((starts.first.ok() ? starts.second : starts.first).code() ==
              (first_stopped ? StatusCode::busy : StatusCode::invalid));
        CHECK(store->lock("pid 10").status().message() == (starts.first.ok() ? "pid 8" : "pid 9"));
        if (child >= 0) system_files().close(child);
      }
    }
  }
}
