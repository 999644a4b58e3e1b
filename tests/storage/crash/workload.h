// A small run to be hurt: what its sessions save is a function of the step alone, so that a loaded version can be
// checked byte by byte, and every promise made to it is written down when it is made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage::crash {

/// What the product has said yes to: this must survive.
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

/// Loads a version, digests checked, and compares it with state_at its step. Anything else than its bytes is `misfit`.
Status load_and_compare(const VersionReader& version);

/// "session" 1, 2, … as ids that sort the other way round, so that nothing rests on their order.
std::string session_id(std::uint64_t number);
/// A start of the program, taking over whoever else has the run.
OpenRequest request_to_open(std::uint64_t session);

/// The operations that crash sequences are made of. `close` ends the session with its note.
enum class Operation { save, prune, takeover, drop };
std::string to_string(Operation operation);

/// One program after another on one run, each operation acknowledged or not.
class Workload {
 public:
  Workload(FileOperations& files, Path folder) : files_(files), folder_(std::move(folder)) {}

  /// Starts the next session. The one before it, if it was not closed, stands still from here on.
  Status open();
  Status save();
  Status prune();
  /// The oldest version that may be dropped; ok without doing anything where there is none.
  Status drop();
  Status close();
  Status remove_orphans();
  Status run(Operation operation);

  const Acknowledged& acknowledged() const { return acknowledged_; }
  /// Goes on from what an earlier workload was promised.
  void resume(const Acknowledged& acknowledged, std::uint64_t sessions, std::uint64_t step);
  std::uint64_t sessions() const { return sessions_; }
  std::uint64_t step() const { return step_; }
  RunWriter* writer() { return session_.writer.get(); }

 private:
  FileOperations& files_;
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

/// Looks at a run as the next start of the program would find it, with the product's own code, and says in one
/// sentence which promise is broken; empty: none. It reads only.
///   1. Every acknowledged open entry is there.
///   2. Every version that can be seen verifies completely. Where `publish_may_tear`, a manifest that was never
///      acknowledged and does not match its own digest is no version.
///   3. An acknowledged version that is gone has a drop note that names it.
///   4. An acknowledged close note is there.
///   5. The version to go on from is the newest acknowledged one, or a later one that is whole.
std::string broken_promise(FileOperations& files, const Path& folder, const Acknowledged& acknowledged,
                           bool publish_may_tear = false);

/// And that the next start works: it opens, loads what rule 5 says, removes orphans, saves under a number never
/// acknowledged before, and this version is then the latest. Writes.
std::string broken_restart(FileOperations& files, const Path& folder, const Acknowledged& acknowledged,
                           std::uint64_t session, bool publish_may_tear = false);

}  // namespace holdfast::storage::crash
