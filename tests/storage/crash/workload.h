// A small run for fault tests. Its sessions save a state that depends only on the step, so that a loaded version can be
// checked byte by byte. Every promise made to it is recorded at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"
#include "simulated_disk.h"

namespace holdfast::storage::crash {

/// Where a workload runs: its disk, and the runner of its protocols' steps.
struct Machine {
  Machine(FileOperations& disk, StepRunner& runner = steps_in_order()) : files(disk), steps(runner) {}
  Machine(SimulatedDisk& disk) : files(disk), steps(disk) {}
  FileOperations& files;
  StepRunner& steps;
};

/// What the product has acknowledged: this must survive.
struct Acknowledged {
  struct Version {
    Uid uid;
    std::uint64_t step = 0;
  };
  std::vector<Uid> opens;
  std::vector<Version> versions;    // in the order of their acknowledgement
  std::vector<std::string> closes;  // sessions that ended with a note
};

/// A version's state at `step`: two small tensors and a value, or about `bytes` bytes.
SaveRequest state_at(std::uint64_t step, std::size_t bytes = 0);

/// Loads a version, digests checked, and compares it with state_at its step. Any difference is `misfit`.
Status load_and_compare(const VersionReader& version);

/// Sessions 1, 2, … as ids that sort in reverse, so that nothing depends on their order.
std::string session_id(std::uint64_t number);
/// A start of the program that takes the run over from any other session.
OpenRequest request_to_open(std::uint64_t session);

/// The operations that crash sequences are made of. `close` ends the session with its note.
enum class Operation { save, prune, takeover, drop };
std::string to_string(Operation operation);

/// One program after another on one run, each operation acknowledged or not.
class Workload {
 public:
  Workload(Machine machine, Path folder) : machine_(machine), folder_(std::move(folder)) {}

  /// Starts the next session. The previous one, if it was not closed, makes no more calls.
  Status open();
  Status save();
  Status prune();
  /// Drops the oldest version that may be dropped; ok without any effect if there is none.
  Status drop();
  Status close();
  Status remove_orphans();
  Status run(Operation operation);

  const Acknowledged& acknowledged() const { return acknowledged_; }
  /// Continues from the promises to an earlier workload.
  void resume(const Acknowledged& acknowledged, std::uint64_t sessions, std::uint64_t step);
  std::uint64_t sessions() const { return sessions_; }
  std::uint64_t step() const { return step_; }
  RunWriter* writer() { return session_.writer.get(); }

 private:
  Machine machine_;
  Path folder_;
  struct Session {
    std::unique_ptr<Store> store;
    std::unique_ptr<RunWriter> writer;
  };
  std::vector<Session> stale_;
  Session session_;
  Acknowledged acknowledged_;
  std::uint64_t sessions_ = 0;
  std::uint64_t step_ = 0;
};

/// Reads a run as the next start of the program would find it, with the product's own code, and returns one sentence
/// about a broken promise, or an empty string. It only reads.
///   1. Every acknowledged open entry exists.
///   2. Every visible version verifies completely. With `publish_may_tear`, a manifest that was never acknowledged and
///      does not match its own digest does not count as a version.
///   3. An acknowledged version that is gone has a drop note that names it.
///   4. An acknowledged close note exists.
///   5. The version to resume from is the newest acknowledged one, or a later one that is complete.
std::string broken_promise(FileOperations& files, const Path& folder, const Acknowledged& acknowledged,
                           bool publish_may_tear = false);

/// Checks that the next start works: it opens, loads the version of rule 5, removes orphans, saves under a number never
/// acknowledged before, and this version is then the latest. Writes.
std::string broken_restart(Machine machine, const Path& folder, const Acknowledged& acknowledged, std::uint64_t session,
                           bool publish_may_tear = false);

}  // namespace holdfast::storage::crash
