// Every call of every operation fails in every way, once and permanently.
#include <fcntl.h>

#include <cerrno>
#include <map>
#include <optional>

#include "catch.h"
#include "counts.h"
#include "faulty_files.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "simulated_disk.h"
#include "workload.h"

namespace holdfast::storage::crash {
namespace {

const Path kFaultyRun = "/home/runs/alpha";

/// An operation and the state of the run before it.
struct Situation {
  const char* name;
  std::function<Status(Workload&)> before;  // without faults
  std::function<Status(Workload&)> operation;
};

Status save_three(Workload& workload) {
  for (int i = 0; i < 3; ++i) {
    if (Status saved = workload.save(); !saved.ok()) return saved;
  }
  return {};
}

Status open_and_save_three(Workload& workload) {
  Status opened = workload.open();
  return opened.ok() ? save_three(workload) : opened;
}

/// Leaves the remains of a process that died while it saved: payload that no manifest refers to.
Status die_while_saving(FileOperations& files, Workload& workload) {
  if (Status status = open_and_save_three(workload); !status.ok()) return status;
  const Path orphan = kFaultyRun / "data" / payload_name({{900, session_id(1)}, 0, 1});
  const int fd = files.open(orphan, O_WRONLY | O_CREAT | O_EXCL, 0644);
  if (fd >= 0) files.close(fd);
  return workload.open();
}

std::vector<Situation> situations(FileOperations& files) {
  return {
      {"first start", [](Workload&) { return Status(); }, [](Workload& w) { return w.open(); }},
      {"start", open_and_save_three, [](Workload& w) { return w.open(); }},
      {"save", open_and_save_three, [](Workload& w) { return w.save(); }},
      {"prune", open_and_save_three, [](Workload& w) { return w.prune(); }},
      {"drop", open_and_save_three, [](Workload& w) { return w.drop(); }},
      {"orphans", [&files](Workload& w) { return die_while_saving(files, w); },
       [](Workload& w) { return w.remove_orphans(); }},
      {"close", open_and_save_three, [](Workload& w) { return w.close(); }},
  };
}

struct Tally {
  std::size_t runs = 0;
  std::size_t reported = 0;
  std::map<std::string, std::size_t> absorbed;  // by function and folder
};

/// Generalizes "unlink /home/runs/alpha/journal/.x.tmp" to "unlink journal/.*": the function and the folder.
std::string where(const std::string& fired) {
  const std::size_t space = fired.find(' ');
  const Path path = fired.substr(space + 1);
  std::string name = path.filename().string();
  const std::string parent = path.parent_path().filename().string();
  if (name.find('-') != std::string::npos) name = name[0] == '.' ? ".*" : "*";
  return fired.substr(0, space + 1) + (parent == "alpha" || parent.empty() ? "" : parent + "/") + name;
}

/// Faults that need not be reported, and why. For code that absorbs another fault, add the reason here.
const std::map<std::string, std::vector<const char*>> kHarmless = {
    {"everything written through it is already synced, or it was only read",
     {"close //home", "close home/runs", "close runs/alpha", "close data", "close data/*", "close journal",
      "close journal/*", "close hints/session.lock", "close hints/start.lock"}},
    {"the lock only prevents mistakes between processes of one host",
     {"lock hints/start.lock", "lock hints/session.lock", "truncate hints/session.lock", "write hints/session.lock",
      "read hints/session.lock"}},
    {"this check only catches a folder of runs that is itself a run, a user's mistake", {"status runs/journal"}},
    {"asked again when the folders are made", {"mount_info runs/alpha"}},
    {"making the folder reports it too",
     {"status //home", "status home/runs", "status runs/alpha", "status data", "status hints", "status journal",
      "status logs", "status metrics"}},
    {"tried again; a note that cannot be read now is read by the next listing",
     {"open data/*", "open journal/*", "read data/*", "read journal/*", "status data/*", "status journal/*"}},
    {"the probe then chooses a weaker way", {"open hints/.*"}},
    {"left behind under a name that is never read; the next session removes it",
     {"unlink hints/.*", "unlink journal/.*"}},
};

bool is_harmless(const std::string& call) {
  for (const auto& [reason, calls] : kHarmless) {
    for (const char* known : calls) {
      if (call == known) return true;
    }
  }
  return false;
}

/// The promise that a loss of power now would break, if either none or all of the pending changes survive.
std::string broken_by_power_loss(const SimulatedDisk& disk, const Acknowledged& acknowledged, bool may_tear) {
  std::string broken;
  for (const bool kept : {false, true}) {
    DiskContent content = disk.content();
    for (Inode& inode : content.inodes) {
      if (!kept) {
        inode.bytes = inode.safe;
        for (const auto& [name, values] : inode.pending) {
          inode.names.erase(name);
          if (values.front()) inode.names[name] = *values.front();
        }
      }
      inode.safe = inode.bytes;
      inode.pending.clear();
      inode.sync_failed = false;
    }
    SimulatedDisk after(std::move(content));
    if (broken.empty()) broken = broken_promise(after, kFaultyRun, acknowledged, may_tear);
  }
  return broken;
}

/// Runs the situation with this fault. False: the operation makes fewer calls.
bool run_with_fault(std::size_t index, const Fault& fault, int rung, Tally& tally, bool& is_transfer) {
  SimulatedDisk disk(DiskContent({"/home"}));
  disk.refuse_link = rung > 0;
  disk.refuse_rename_exclusive = rung > 1;
  FaultyFiles files(disk);
  files.sync_failed = [&](int fd) { disk.fail_sync(fd); };
  const Situation situation = situations(disk)[index];
  Workload workload({files, disk}, kFaultyRun);
  REQUIRE(situation.before(workload).ok());

  files.arm(fault);
  const Status status = situation.operation(workload);
  if (files.fired().empty()) return false;
  is_transfer = files.is_transfer();
  if (fault.error == 0 && !is_transfer) return true;
  files.lift();
  ++tally.runs;

  INFO(situation.name << ", " << fault.text() << ": " << files.fired() << ", rung " << rung);
  INFO("status: " << to_string(status.code()) << " " << status.message());
  CHECK_FALSE(files.spun());
  CHECK(files.retried_sync().empty());
  const bool passes =
      (fault.error == EINTR || fault.error == 0) && fault.lasting == Lasting::once && !fault.done_anyway;
  if (passes) {
    CHECK(status.ok());
  } else if (status.ok()) {
    // A late interruption, or a transfer that continued in small pieces, is harmless.
    if (fault.error != EINTR && fault.error != 0) {
      ++tally.absorbed[where(files.fired())];
      CHECK(is_harmless(where(files.fired())));
    }
  } else {
    ++tally.reported;
    CHECK(status.message().find("/home") != std::string::npos);
  }
  const bool may_tear = rung == 2;
  const Acknowledged promised = workload.acknowledged();
  CHECK(broken_promise(disk, kFaultyRun, promised, may_tear) == "");
  CHECK(broken_by_power_loss(disk, promised, may_tear) == "");

  // The fault is removed: the same session continues, if it is open, and then the next one.
  if (workload.writer() && status.code() != StatusCode::superseded) {
    const Status saved = workload.save();
    INFO("the same session's next save: " << saved.message());
    CHECK(saved.ok());
    CHECK(broken_by_power_loss(disk, workload.acknowledged(), may_tear) == "");
  }
  CHECK(broken_restart(disk, kFaultyRun, workload.acknowledged(), workload.sessions() + 1, may_tear) == "");
  return true;
}

Tally run_all(const std::vector<int>& rungs, std::uint64_t divisor) {
  Tally tally;
  SimulatedDisk unused(DiskContent{});
  const std::size_t count = situations(unused).size();
  std::uint64_t turn = seed() % divisor;
  for (const int rung : rungs) {
    for (std::size_t index = 0; index < count; ++index) {
      bool more = true;
      for (std::size_t at = 0; more; ++at) {
        bool is_transfer = false;
        for (const int error : {EIO, ENOSPC, EINTR, EROFS, 0}) {
          for (const Lasting lasting : {Lasting::once, Lasting::this_call, Lasting::all_calls}) {
            for (const bool done_anyway : {false, true}) {
              if (done_anyway && (error == 0 || lasting != Lasting::once)) continue;
              // The probe always runs, because it tells whether the operation makes more calls.
              const bool probe = error == EIO && lasting == Lasting::once && !done_anyway;
              if (!probe && turn++ % divisor != 0) continue;
              more = run_with_fault(index, {at, error, lasting, done_anyway}, rung, tally, is_transfer);
              if (!more) break;
            }
            if (!more) break;
          }
          if (!more) break;
        }
      }
    }
  }
  std::string line = "faults=" + std::to_string(tally.runs) + " reported=" + std::to_string(tally.reported);
  for (const auto& [call, times] : tally.absorbed) line += "\n  harmless: " + call + " ×" + std::to_string(times);
  print_counts(line);
  return tally;
}

}  // namespace

TEST_CASE("every_fault_of_every_call_is_absorbed_or_reported_a_slice") { CHECK(run_all({0}, 7).runs > 100); }

TEST_CASE("every_fault_of_every_call_is_absorbed_or_reported", "[full]") { CHECK(run_all({0, 1, 2}, 1).runs > 5'000); }

TEST_CASE("a_save_costs_one_sync_a_file_and_three_more_in_three_rounds") {
  SimulatedDisk disk(DiskContent({"/home"}));
  Workload workload(disk, kFaultyRun);
  REQUIRE(workload.open().ok());
  for (int i = 0; i < 3; ++i) {
    const std::size_t syncs = disk.syncs();
    const std::size_t rounds = disk.sync_rounds();
    REQUIRE(workload.save().ok());
    constexpr std::size_t kPayloadFiles = 1;
    CHECK(disk.syncs() - syncs == kPayloadFiles + 3);
    CHECK(disk.sync_rounds() - rounds == 3);
  }
}

TEST_CASE("a_session_leaves_no_descriptor_open") {
  SimulatedDisk disk(DiskContent({"/home"}));
  {
    Workload workload(disk, kFaultyRun);
    REQUIRE(open_and_save_three(workload).ok());
    REQUIRE(workload.prune().ok());
    REQUIRE(workload.open().ok());
  }
  CHECK(disk.open_descriptors() == 0);
}

TEST_CASE("a_full_disk_is_reported_and_nothing_is_lost") {
  // The payload of the save, which limits the loop.
  constexpr std::size_t kBytes = 256 * 1024;
  std::size_t runs = 0;
  std::size_t refused = 0;
  for (std::uint64_t room = 0;; room += 4096) {
    SimulatedDisk disk(DiskContent({"/home"}));
    Workload workload(disk, kFaultyRun);
    REQUIRE(workload.open().ok());
    REQUIRE(workload.save().ok());
    disk.capacity = disk.used_bytes() + room;
    INFO("room for " << room << " bytes");
    const auto saved = workload.writer()->save(state_at(7, kBytes));
    ++runs;
    if (!saved) {
      ++refused;
      INFO(saved.status().message());
      CHECK(saved.code() == StatusCode::no_space);
      CHECK(saved.status().message().find("/home/runs/alpha") != std::string::npos);
      const auto store = open_file_store(kFaultyRun, {.read_only = true}, disk);
      CHECK(store->list("data")->size() == 1);  // the unfinished payload was removed
    }
    CHECK(broken_promise(disk, kFaultyRun, workload.acknowledged()) == "");
    disk.capacity = 0;
    if (saved) break;
    CHECK(workload.save().ok());
    CHECK(broken_restart(disk, kFaultyRun, workload.acknowledged(), workload.sessions() + 1) == "");
    REQUIRE(room < 4 * kBytes);
  }
  CHECK(refused >= kBytes / 4096);
  print_counts("full_disk=" + std::to_string(runs));
}

}  // namespace holdfast::storage::crash
