// Versions reach the mirrors in the background, training never waits for them, and a run continues from any place that
// holds its newest version.
#include <sys/stat.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "catch.h"
#include "checkpoint/run_search.h"
#include "checkpoint/store_files.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/tiers/mirror.h"
#include "session_run.h"
#include "storage/forwarding_files.h"

namespace {

using namespace holdfast;
namespace fs = boost::filesystem;

constexpr std::uint64_t kSteps = 40;
constexpr std::uint64_t kSum = kSteps * (kSteps + 1) / 2;

/// Counts to 40; stops after `until` steps.
int count(Session& session, std::uint64_t& sum, std::uint64_t until = kSteps,
          const std::function<void(std::uint64_t)>& each = {}) {
  session.track("sum", sum);
  for (auto& step : session.steps({.count = kSteps})) {
    sum += step.number();
    if (each) each(step.number());
    if (step.number() == until) session.stop("enough");
  }
  return session.finish();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t times(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

storage::History history_of(const fs::path& run) {
  storage::History history;
  REQUIRE(history.refresh(*storage::open_file_store(run, {.read_only = true})).ok());
  return history;
}

/// Calls below a folder wait while it hangs, as those of a mount whose server does not answer.
class HangingFolder final : public ForwardingFiles {
 public:
  explicit HangingFolder(fs::path folder) : folder_(std::move(folder)) {}

  void hang(bool hangs) {
    const std::lock_guard lock(mutex_);
    hangs_ = hangs;
    changed_.notify_all();
  }
  int open(const Path& path, int flags, int mode) override {
    wait(path);
    return ForwardingFiles::open(path, flags, mode);
  }
  int list(const Path& path, std::vector<std::string>& names) override {
    wait(path);
    return ForwardingFiles::list(path, names);
  }

 private:
  void wait(const Path& path) {
    if (!path.string().starts_with(folder_.string())) return;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !hangs_; });
  }

  const fs::path folder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hangs_ = false;
};

struct StoreFiles {
  explicit StoreFiles(storage::FileOperations& files) { set_store_files(&files); }
  ~StoreFiles() { set_store_files(nullptr); }
};

}  // namespace

TEST_CASE("a_run_whose_home_is_lost_continues_from_its_mirror") {
  const Run run;
  const fs::path mirror = run.folder / "drive";
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.every = "10";
  options.mirror = {mirror.string()};
  std::uint64_t sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum, 25); }, options) == kRunAgain);
  CHECK(has(run.said(), "copies in " + mirror.string()));
  CHECK(has(run.said(), "is also in " + (mirror / "run").string() + " ("));
  CHECK(fs::exists(mirror / "run" / "metrics"));

  fs::remove_all(run.folder / "home");
  sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);
  CHECK(sum == kSum);
  CHECK(has(run.said(), "step 25, from " + (mirror / "run").string()));
  CHECK(history_of(mirror / "run").opens().size() == 2);
  const auto is_end = [](const storage::Note& note) { return note.kind == storage::NoteKind::close; };
  const auto notes = history_of(mirror / "run").notes();
  CHECK(std::count_if(notes.begin(), notes.end(), is_end) == 2);

  // What is there is enough for a run that knows the mirror as its home.
  options.dir = mirror.string();
  options.mirror = {};
  sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);
  CHECK(sum == kSum);
}

TEST_CASE("the_version_that_a_session_continues_from_a_mirror_is_brought_home") {
  const Run run;
  const fs::path mirror = run.folder / "drive", home = run.folder / "home";
  SessionOptions options = run.options();
  options.dir = home.string();
  options.mirror = {mirror.string()};
  std::uint64_t sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);

  // The run is complete, so this session saves nothing.
  fs::remove_all(home);
  sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);
  CHECK(has(run.said(), "from " + (mirror / "run").string()));
  CHECK(has(run.said(), "is also in " + (home / "run").string()));

  fs::remove_all(mirror);
  options.mirror = {};
  sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);
  CHECK(sum == kSum);
  CHECK(times(run.said(), ", from " + (mirror / "run").string()) == 1);  // of the second start only
  CHECK(history_of(home / "run").versions().size() == 1);
}

TEST_CASE("a_mirror_that_is_not_mounted_never_means_a_start_from_scratch") {
  const Run run;
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.mirror = {(run.folder / "drive" / "MyDrive" / "holdfast").string()};
  std::uint64_t sum = 0;
  const auto start = [&] { return run.session([&](Session& s) { return count(s, sum); }, options); };
  CHECK_THROWS_AS(start(), Error);
  try {
    (void)start();
  } catch (const Error& error) {
    CHECK(has(error.what(), (run.folder / "drive" / "MyDrive").string()));
    CHECK(has(error.what(), "--holdfast.fresh"));
  }
  options.fresh = true;
  sum = 0;
  CHECK(start() == kDone);
  CHECK(sum == kSum);
}

TEST_CASE("an_empty_mount_point_is_not_an_empty_mirror") {
  const Run run;
  struct stat here {
  }, system{};
  REQUIRE(::stat(run.folder.path().c_str(), &here) == 0);
  REQUIRE(::stat("/", &system) == 0);
  if (here.st_dev != system.st_dev) return;  // an empty folder of another disk may well be meant
  fs::create_directory(run.folder / "nas");
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.mirror = {(run.folder / "nas" / "holdfast").string()};
  std::uint64_t sum = 0;
  const auto start = [&] { return run.session([&](Session& s) { return count(s, sum); }, options); };
  CHECK_THROWS_AS(start(), Error);
  CHECK(fs::is_empty(run.folder / "nas"));
  fs::create_directory(run.folder / "nas" / "holdfast");
  CHECK(start() == kDone);
}

TEST_CASE("a_mirror_that_fails_is_reported_once_and_again_when_it_works") {
  const Run run;
  const fs::path mirror = run.folder / "drive" / "holdfast";
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.every = "5";
  options.mirror = {mirror.string()};
  options.fresh = true;  // the drive is not mounted yet
  std::uint64_t sum = 0;
  const auto mount_at_30 = [&](std::uint64_t step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (step == 30) fs::create_directories(mirror);
  };
  CHECK(run.session([&](Session& s) { return count(s, sum, kSteps, mount_at_30); }, options) == kDone);
  CHECK(sum == kSum);
  CHECK(times(run.said(), "fails: ") == 1);
  CHECK(times(run.said(), "works again") == 1);
  CHECK(history_of(mirror / "run").versions().back().uid ==
        history_of(run.folder / "home" / "run").versions().back().uid);
}

TEST_CASE("a_mirror_whose_later_history_was_unknown_at_the_start_is_left_alone_and_training_continues") {
  const Run run;
  const fs::path mirror = run.folder / "drive" / "holdfast";
  {
    const auto elsewhere = storage::open_file_store(run.folder / "elsewhere" / "run");
    for (const char* session : {"aaaaaaaa", "bbbbbbbb", "cccccccc"}) {
      storage::OpenRequest request;
      request.run = "run";
      request.session = session;
      REQUIRE(storage::RunWriter::open(*elsewhere, request).ok());
    }
  }
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.every = "5";
  options.mirror = {mirror.string()};
  options.fresh = true;
  std::uint64_t sum = 0;
  const auto mount_at_20 = [&](std::uint64_t step) {
    if (step != 20) return;
    fs::create_directories(run.folder / "drive");
    fs::rename(run.folder / "elsewhere", mirror);
  };
  CHECK(run.session([&](Session& s) { return count(s, sum, kSteps, mount_at_20); }, options) == kDone);
  CHECK(sum == kSum);
  CHECK(has(run.said(), "nothing is copied to " + mirror.string()));
  CHECK(history_of(mirror / "run").versions().empty());
}

TEST_CASE("training_does_not_wait_for_a_mirror_that_hangs") {
  const Run run;
  const fs::path mirror = run.folder / "drive";
  HangingFolder files(mirror);
  const StoreFiles chosen(files);
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.every = "5";
  options.keep = 2;
  options.mirror = {mirror.string()};
  std::uint64_t sum = 0;
  const auto each = [&](std::uint64_t step) {
    if (step == 1) files.hang(true);
    if (step == kSteps) files.hang(false);
  };
  CHECK(run.session([&](Session& s) { return count(s, sum, kSteps, each); }, options) == kDone);
  CHECK(sum == kSum);
  const storage::History there = history_of(mirror / "run");
  REQUIRE_FALSE(there.versions().empty());
  CHECK(there.versions().back().uid == history_of(run.folder / "home" / "run").versions().back().uid);
  CHECK(has(run.said(), "were not copied, because saving is faster than this mirror"));
}

TEST_CASE("a_session_stops_when_another_machine_continues_its_run_from_the_mirror") {
  const Run run;
  const fs::path mirror = run.folder / "drive";
  SessionOptions options = run.options();
  options.dir = (run.folder / "home").string();
  options.every = "5";
  options.mirror = {mirror.string()};
  std::uint64_t sum = 0;
  const auto take_over_at_12 = [&](std::uint64_t step) {
    if (step != 12) return;
    const auto other_home = storage::open_file_store(run.folder / "other" / "run");
    const auto far = storage::open_file_store(mirror / "run");
    storage::OpenRequest request;
    request.run = "run";
    request.session = "ffffffff";
    request.host = "other-machine";
    request.others = {{far.get()}};
    const auto other = storage::RunWriter::open(*other_home, request);
    REQUIRE(other.ok());
    REQUIRE(storage::Mirror(*other_home, *far, {.session = (*other)->order()}).open().ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // a copy that runs now must not see half of it
  };
  const int code = run.session(
      [&](Session& s) {
        return count(s, sum, kSteps, [&](std::uint64_t step) {
          take_over_at_12(step);
          if (step > 12) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        });
      },
      options);
  CHECK(code == kSuperseded);
  CHECK(has(run.said(), "other-machine"));
  CHECK(sum < kSum);
}

TEST_CASE("output_of_an_earlier_session_is_found_below_the_search_roots") {
  const Run run;
  SessionOptions options = run.options();
  options.dir = (run.folder / "input" / "notebooks" / "user" / "first" / "holdfast").string();
  fs::create_directories(options.dir);
  std::uint64_t sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum, 10); }, options) == kRunAgain);

  options.dir = (run.folder / "working").string();
  options.search = {(run.folder / "nowhere").string(), (run.folder / "input").string()};
  sum = 0;
  CHECK(run.session([&](Session& s) { return count(s, sum); }, options) == kDone);
  CHECK(sum == kSum);
  CHECK(has(run.said(), "step 10, from " + (run.folder / "input").string()));
}

TEST_CASE("search_finds_runs_by_name_and_enters_no_folder_twice") {
  const ScratchFolder root;
  fs::create_directories(root / "a/b/run/journal");
  fs::create_directories(root / "run/journal");
  fs::create_directories(root / "a/other/journal");
  fs::create_directories(root / "1/2/3/4/run/journal");
  fs::create_directories(root / "1/2/3/4/5/run/journal");  // too deep
  fs::create_directory_symlink(root.path(), root / "a/again");
  const std::vector<storage::Path> expected = {root / "run", root / "a/b/run", root / "1/2/3/4/run"};
  CHECK(find_runs({root.path().string()}, "run").found == expected);
  const RunSearch none = find_runs({(root / "gone").string()}, "run");
  CHECK(none.found.empty());
  CHECK(none.complete.ok());
}

TEST_CASE("a_mirror_in_the_folder_of_the_runs_is_refused") {
  const Run run;
  SessionOptions options = run.options();
  options.mirror = {(run.folder.path() / ".").string()};
  std::uint64_t sum = 0;
  const auto start = [&] { return run.session([&](Session& s) { return count(s, sum); }, options); };
  CHECK_THROWS_AS(start(), Error);
  fs::create_directory_symlink(run.folder.path(), run.folder / "link");
  options.mirror = {(run.folder / "link").string()};
  CHECK_THROWS_AS(start(), Error);
  options.mirror = {(run.folder / "a").string(), (run.folder / "b" / ".." / "a").string()};
  CHECK_THROWS_AS(start(), Error);
}
