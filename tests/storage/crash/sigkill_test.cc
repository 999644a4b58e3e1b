// Real processes on real folders, ended by SIGKILL. A child writes every promise that it received to a pipe; its parent
// decides what was lost.
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/filesystem/operations.hpp>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "catch.h"
#include "counts.h"
#include "storage/observed_steps.h"
#include "workload.h"

namespace holdfast::storage::crash {
namespace {

/// The system's calls and the protocols' steps, in a process that ends itself at a given call after a given step was
/// reached.
class DeadlyFiles : public FileOperations, public ObservedSteps {
 public:
  std::string step;  // empty: never
  int visits = 1;    // at the N-th time the step is reached
  int calls = 0;     // 0: at the step itself; N: before the N-th call after it
  std::set<std::string>* seen = nullptr;

  int open(const Path& path, int flags, int mode) override { return call(), system_files().open(path, flags, mode); }
  int close(int fd) override { return call(), system_files().close(fd); }
  std::int64_t read(int fd, void* into, std::size_t bytes, std::uint64_t offset) override {
    return call(), system_files().read(fd, into, bytes, offset);
  }
  std::int64_t write(int fd, const void* from, std::size_t bytes, std::uint64_t offset) override {
    return call(), system_files().write(fd, from, bytes, offset);
  }
  int allocate(int fd, std::uint64_t bytes) override { return call(), system_files().allocate(fd, bytes); }
  int truncate(int fd, std::uint64_t bytes) override { return call(), system_files().truncate(fd, bytes); }
  int set_direct(int fd, bool direct) override { return call(), system_files().set_direct(fd, direct); }
  int sync(int fd) override { return call(), system_files().sync(fd); }
  int make_directory(const Path& path) override { return call(), system_files().make_directory(path); }
  int link(const Path& from, const Path& to) override { return call(), system_files().link(from, to); }
  int rename_exclusive(const Path& from, const Path& to) override {
    return call(), system_files().rename_exclusive(from, to);
  }
  int unlink(const Path& path) override { return call(), system_files().unlink(path); }
  int list(const Path& folder, std::vector<std::string>& names) override {
    return call(), system_files().list(folder, names);
  }
  int status(const Path& path, FileInfo& info) override { return call(), system_files().status(path, info); }
  int mount_info(const Path& path, MountInfo& info) override { return call(), system_files().mount_info(path, info); }
  int status_of(int fd, FileInfo& info) override { return call(), system_files().status_of(fd, info); }
  int lock(int fd) override { return call(), system_files().lock(fd); }
  void reached(std::string_view label) override {
    if (seen) seen->insert(std::string(label));
    if (label != step || --visits != 0) return;
    if (calls == 0) die();
    left_ = calls;
  }

 private:
  void call() {
    if (left_ > 0 && --left_ == 0) die();
  }
  static void die() { ::kill(::getpid(), SIGKILL); }
  std::atomic<int> left_{0};
};

/// A message in the pipe: one promise, or a failure that a crash does not explain.
struct Message {
  char kind = 0;  // 'o' open, 's' save, 'c' close, 'f' failure
  std::uint64_t seq = 0;
  std::uint64_t step = 0;
  char text[200] = {};
};

class Teller {
 public:
  explicit Teller(int pipe) : pipe_(pipe) {}
  void tell(char kind, const Uid& uid, std::uint64_t step, const std::string& text) const {
    Message message;
    message.kind = kind;
    message.seq = uid.seq;
    message.step = step;
    std::strncpy(message.text, text.c_str(), sizeof message.text - 1);
    if (::write(pipe_, &message, sizeof message) != static_cast<ssize_t>(sizeof message)) ::_exit(3);
  }
  /// Sends the promises that are new in `now`.
  void tell(const Acknowledged& now) {
    for (; opens_ < now.opens.size(); ++opens_) tell('o', now.opens[opens_], 0, now.opens[opens_].session);
    for (; versions_ < now.versions.size(); ++versions_) {
      const Acknowledged::Version& version = now.versions[versions_];
      tell('s', version.uid, version.step, version.uid.session);
    }
    for (; closes_ < now.closes.size(); ++closes_) tell('c', {}, 0, now.closes[closes_]);
  }
  void start_from(const Acknowledged& known) {
    opens_ = known.opens.size();
    versions_ = known.versions.size();
    closes_ = known.closes.size();
  }

 private:
  int pipe_;
  std::size_t opens_ = 0, versions_ = 0, closes_ = 0;
};

/// A program's life: starts, cleans, performs six random operations, ends. Every kind of operation occurs.
void live(Workload& workload, Teller& teller, std::mt19937_64& chance) {
  const auto done = [&](const Status& status, const char* what) {
    if (!status.ok()) {
      teller.tell('f', {}, 0, std::string(what) + ": " + status.message());
      ::_exit(2);
    }
    teller.tell(workload.acknowledged());
  };
  done(workload.open(), "open");
  done(workload.remove_orphans(), "remove orphans");
  std::vector<Operation> operations{Operation::save, Operation::save, Operation::prune,
                                    Operation::save, Operation::drop, Operation::takeover};
  std::shuffle(operations.begin(), operations.end(), chance);
  for (const Operation operation : operations) done(workload.run(operation), to_string(operation).c_str());
  done(workload.save(), "save");
  done(workload.prune(), "prune");
  done(workload.close(), "close");
}

struct KillTally {
  std::size_t kills = 0;
  std::size_t random = 0;
  std::map<std::string, std::size_t> at_step;
  std::vector<std::string> broken;
  double seconds = 0;
};

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// The labels of all steps of a life.
std::vector<std::string> all_steps(const Path& folder) {
  DeadlyFiles files;
  std::set<std::string> seen;
  files.seen = &seen;
  Workload workload({files, files}, folder);
  REQUIRE(workload.open().ok());
  for (int i = 0; i < 3; ++i) REQUIRE(workload.save().ok());
  REQUIRE(workload.prune().ok());
  REQUIRE(workload.close().ok());
  return {seen.begin(), seen.end()};
}

KillTally kill_many(const Path& place, std::size_t kills) {
  namespace fs = boost::filesystem;
  const Path base = place / ("holdfast-kill-" + std::to_string(::getpid()));
  fs::create_directories(base);
  const std::vector<std::string> steps = all_steps(base / "probe");
  std::mt19937_64 chance(seed());
  KillTally tally;
  Acknowledged known;
  std::uint64_t sessions = 0;
  std::uint64_t step = 0;
  Path run;
  int lives_in_run = 0;
  double whole_life = 0.002;
  const double begin = now();
  for (std::size_t life = 0; tally.kills < kills && tally.broken.size() < 5 && life < 4 * kills + 100; ++life) {
    if (run.empty() || ++lives_in_run == 16) {  // a new run: its journal grows with every start
      if (!run.empty()) fs::remove_all(run);
      run = base / ("run-" + std::to_string(life));
      known = {};
      lives_in_run = 0;
    }
    const bool labelled = tally.kills % 2 == 0;
    DeadlyFiles files;
    if (labelled) {
      // Chooses the step with the fewest deaths so far, and dies before it, in it, or after it.
      const auto least = std::min_element(steps.begin(), steps.end(), [&](const auto& a, const auto& b) {
        return tally.at_step[a] < tally.at_step[b];
      });
      files.step = *least;
      files.visits = 1 + static_cast<int>(chance() % 2);
      files.calls = static_cast<int>(chance() % 12);
    }
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const double born = now();
    const std::uint64_t childs_chance = chance();
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      Workload workload({files, files}, run);
      workload.resume(known, sessions, step);
      Teller teller(ends[1]);
      teller.start_from(known);
      std::mt19937_64 own(childs_chance);
      live(workload, teller, own);
      ::_exit(0);
    }
    ::close(ends[1]);
    if (!labelled) {
      const double wait = whole_life * static_cast<double>(chance() % 1000) / 1000;
      timespec pause{0, static_cast<long>(std::min(wait, 0.5) * 1e9)};
      ::nanosleep(&pause, nullptr);
      ::kill(pid, SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (killed) {
      ++tally.kills;
      ++(labelled ? tally.at_step[files.step] : tally.random);
    } else {
      whole_life = 0.8 * whole_life + 0.2 * (now() - born);
    }
    std::string failure;
    Message message;
    while (::read(ends[0], &message, sizeof message) == static_cast<ssize_t>(sizeof message)) {
      const Uid uid{message.seq, message.text};
      if (message.kind == 'o') known.opens.push_back(uid);
      if (message.kind == 's') known.versions.push_back({uid, message.step});
      if (message.kind == 'c') known.closes.push_back(message.text);
      if (message.kind == 'f') failure = message.text;
    }
    ::close(ends[0]);
    sessions += 10;
    step += 100;
    if (!killed && !(WIFEXITED(status) && WEXITSTATUS(status) == 0) && failure.empty()) failure = "the child crashed";
    if (failure.empty()) failure = broken_promise(system_files(), run, known);
    if (!failure.empty()) {
      tally.broken.push_back("life " + std::to_string(life) + ", killed at \"" + files.step + "\" + " +
                             std::to_string(files.calls) + " calls, in " + run.string() + ": " + failure);
      run.clear();
    }
  }
  tally.seconds = now() - begin;
  if (tally.broken.empty()) fs::remove_all(base);
  return tally;
}

void require_nothing_lost(const char* where, const Path& place, std::size_t kills, std::size_t each_step) {
  const KillTally tally = kill_many(place, kills);
  std::size_t least = tally.kills;
  for (const auto& [step, times] : tally.at_step) least = std::min(least, times);
  print_counts(std::string(where) + ": kills=" + std::to_string(tally.kills) +
               " random=" + std::to_string(tally.random) + " steps=" + std::to_string(tally.at_step.size()) +
               " each>=" + std::to_string(least) +
               " per_second=" + std::to_string(static_cast<int>(static_cast<double>(tally.kills) / tally.seconds)) +
               " lost=" + std::to_string(tally.broken.size()));
  for (const std::string& broken : tally.broken) UNSCOPED_INFO(broken);
  REQUIRE(tally.broken.empty());
  CHECK(tally.kills >= kills);
  CHECK(least >= each_step);
  CHECK(tally.at_step.size() >= 20);
}

const Path kMemory = "/dev/shm";

bool memory_is_there() {
  MountInfo mount;
  if (system_files().mount_info(kMemory, mount) >= 0 && mount.type == "tmpfs" && ::access(kMemory.c_str(), W_OK) == 0) {
    return true;
  }
  print_counts("skipped: there is no writable tmpfs at /dev/shm");
  return false;
}

}  // namespace

TEST_CASE("acknowledged_work_survives_sigkill_a_few") {
  require_nothing_lost("here", boost::filesystem::current_path(), 60, 1);
}

TEST_CASE("acknowledged_work_survives_sigkill_on_tmpfs_a_slice", "[full]") {
  if (memory_is_there()) require_nothing_lost("tmpfs", kMemory, 2'600, 50);
}

TEST_CASE("acknowledged_work_survives_sigkill_on_tmpfs", "[long]") {
  if (memory_is_there()) require_nothing_lost("tmpfs", kMemory, 20'000, 50);
}

TEST_CASE("acknowledged_work_survives_sigkill_on_disk_a_slice", "[full]") {
  require_nothing_lost("disk", boost::filesystem::current_path(), 260, 5);
}

TEST_CASE("acknowledged_work_survives_sigkill_on_disk", "[long]") {
  require_nothing_lost("disk", boost::filesystem::current_path(), 2'600, 50);
}

}  // namespace holdfast::storage::crash
