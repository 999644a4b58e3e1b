// Faults of the operating system: system calls that fail under strace, and a full file system.
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <fstream>
#include <map>
#include <sstream>

#include "catch.h"
#include "counts.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "program_beside.h"
#include "workload.h"

namespace holdfast::storage::crash {
namespace {

namespace fs = boost::filesystem;

std::string text_of(const Path& path) {
  std::ifstream file(path.string());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class Folder {
 public:
  explicit Folder(const std::string& name) : path(fs::current_path() / (name + "-" + std::to_string(::getpid()))) {
    fs::create_directories(path);
  }
  ~Folder() {
    boost::system::error_code ignored;
    fs::remove_all(path, ignored);
  }
  const Path path;
};

/// Runs a shell command; its exit status as waitpid gives it.
int shell(const std::string& command) { return std::system(command.c_str()); }

const std::string kCalls =
    "openat,pwrite64,pread64,fsync,link,unlink,mkdir,close,fallocate,ftruncate,getdents64,newfstatat,statfs,fcntl";

struct Injection {
  std::string call;
  std::size_t number = 0;  // of this call in the whole program, from 1
};

/// The program's calls that access the run's folder.
std::vector<Injection> calls_of(const Path& trace, const Path& run) {
  std::vector<Injection> result;
  std::map<std::string, std::size_t> counts;
  std::istringstream lines(text_of(trace));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t begin = line.find_first_not_of("0123456789 ");  // after the process's number
    const std::size_t end = line.find('(');
    if (begin == std::string::npos || end == std::string::npos || end < begin) continue;
    const std::string call = line.substr(begin, end - begin);
    if (call.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos) continue;
    ++counts[call];
    if (line.find(run.string()) != std::string::npos) result.push_back({call, counts[call]});
  }
  return result;
}

bool strace_works(const Path& folder) {
  const std::string log = (folder / "strace-works").string();
  if (shell("strace -f -o " + log + " true > /dev/null 2>&1") == 0) return true;
  print_counts("skipped: strace is missing or may not trace here");
  return false;
}

void inject(std::uint64_t divisor, std::size_t at_least) {
  ::setenv("ASAN_OPTIONS", "detect_leaks=0", /*overwrite=*/0);  // the leak check also traces, which strace prevents
  const Folder folder("strace-test");
  if (!strace_works(folder.path)) return;
  const Path run = folder.path / "run";
  const Path before = folder.path / "before";
  const Path trace = folder.path / "trace";
  const Path output = folder.path / "output";
  const std::string program = program_beside("storage_writer") + " ";

  // The initial state: three versions of a session that ended.
  Acknowledged known;
  {
    Workload workload(system_files(), before);
    REQUIRE(workload.open().ok());
    for (int i = 0; i < 3; ++i) REQUIRE(workload.save().ok());
    REQUIRE(workload.close().ok());
    known = workload.acknowledged();
  }
  const auto copy_run = [&] {
    fs::remove_all(run);
    REQUIRE(shell("cp -r " + before.string() + " " + run.string()) == 0);
  };
  copy_run();
  const std::string redirect = " > " + output.string() + " 2> " + output.string() + ".err";
  REQUIRE(shell("strace -f -y -e trace=" + kCalls + " -o " + trace.string() + " " + program + run.string() +
                redirect) == 0);
  const std::vector<Injection> injections = calls_of(trace, run);
  REQUIRE(injections.size() > 60);

  std::size_t runs = 0, fired = 0, refused = 0;
  std::uint64_t turn = seed() % divisor;
  for (const Injection& injection : injections) {
    for (const char* error : {"EIO", "ENOSPC", "EINTR", "EROFS"}) {
      for (const bool for_good : {false, true}) {
        if (turn++ % divisor != 0) continue;
        copy_run();
        const std::string when = std::to_string(injection.number) + (for_good ? "+" : "");
        const int status =
            shell("strace -f -e trace=" + injection.call + " -e inject=" + injection.call + ":error=" + error +
                  ":when=" + when + " -o " + trace.string() + " " + program + run.string() + redirect);
        INFO(injection.call << " number " << when << " fails with " << error);
        ++runs;
        const bool did_fire = text_of(trace).find("(INJECTED)") != std::string::npos;
        fired += did_fire;
        // A thread's calls may differ between runs, but nothing may be lost in any run.
        const std::string sentence = text_of(output.string() + ".err");
        INFO("it said: " << sentence);
        REQUIRE(WIFEXITED(status));
        CHECK((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 1));
        if (WEXITSTATUS(status) == 1) {
          ++refused;
          CHECK(sentence.find(run.string()) != std::string::npos);
          CHECK_FALSE((std::string(error) == "EINTR" && !for_good));
        }
        Acknowledged now = known;
        std::istringstream lines(text_of(output));
        for (std::string what, uid; lines >> what >> uid;) {
          if (what == "opened") now.opens.push_back(*Uid::parse(uid));
          if (what != "saved") continue;
          std::uint64_t step = 0;
          lines >> step;
          now.versions.push_back({*Uid::parse(uid), step});
        }
        CHECK(broken_promise(system_files(), run, now) == "");
        CHECK(broken_restart(system_files(), run, now, 5) == "");
      }
    }
  }
  print_counts("strace: runs=" + std::to_string(runs) + " fired=" + std::to_string(fired) +
               " refused=" + std::to_string(refused));
  CHECK(fired >= at_least);
  CHECK(fired >= runs * 9 / 10);
}

/// Runs in its own mount namespace, so that nothing stays mounted. 0: success; 77: mounting is not allowed here.
int fill_real_disks(const Path& place) {
  if (::unshare(CLONE_NEWNS) != 0) return 77;
  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  constexpr std::size_t kBytes = 256 * 1024;
  int runs = 0, refused = 0;
  bool fits = false;
  for (std::size_t room = 0; !fits && room <= 4 * kBytes; room += 32 * 1024) {
    const std::string size = "size=" + std::to_string(32 * 1024 + room);
    if (::mount("tmpfs", place.c_str(), "tmpfs", 0, size.c_str()) != 0) return 77;
    const Path run = place / "run";
    {
      Workload workload(system_files(), run);
      const Status opened = workload.open();
      const Status first = opened.ok() ? workload.save() : opened;
      const auto saved = workload.writer() ? workload.writer()->save(state_at(7, kBytes)) : Result<SavedVersion>(first);
      ++runs;
      fits = saved.ok();
      const auto fail = [&](const std::string& what) {
        std::cout << size << ": " << what << std::endl;
        return 1;
      };
      if (!saved) {
        ++refused;
        if (saved.code() != StatusCode::no_space) return fail("not reported as full: " + saved.status().message());
        if (saved.status().message().find(place.string()) == std::string::npos) return fail("no path in the message");
      }
      if (first.ok()) {
        Acknowledged known = workload.acknowledged();
        if (saved) known.versions.push_back({saved->uid, 7});
        if (const auto broken = broken_promise(system_files(), run, known); !broken.empty()) return fail(broken);
        if (::mount("tmpfs", place.c_str(), "tmpfs", MS_REMOUNT, "size=8M") != 0) return fail("cannot make room");
        if (Status again = workload.save(); !again.ok()) return fail("with room again: " + again.message());
        known.versions.push_back(workload.acknowledged().versions.back());
        if (const auto broken = broken_restart(system_files(), run, known, 9); !broken.empty()) return fail(broken);
      }
    }
    if (::umount(place.c_str()) != 0) return 1;
  }
  std::cout << "full_tmpfs=" << runs << " refused=" << refused << std::endl;
  return fits && refused >= 8 ? 0 : 1;
}

}  // namespace

// Odd divisors, because a slice with an even one would always hold the same few of a call's eight ways to fail.
TEST_CASE("system_calls_that_fail_under_strace_lose_nothing_a_few") { inject(61, 5); }
TEST_CASE("system_calls_that_fail_under_strace_lose_nothing_a_slice", "[full]") { inject(11, 50); }
TEST_CASE("system_calls_that_fail_under_strace_lose_nothing", "[long]") { inject(1, 500); }

TEST_CASE("a_full_tmpfs_is_reported_and_nothing_is_lost") {
  const Folder folder("full-tmpfs");
  std::cout.flush();
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) ::_exit(fill_real_disks(folder.path));
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    print_counts("skipped: mounting is not allowed here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace holdfast::storage::crash
