// Brings the version that a run continues home, from a mirror or the output of an earlier session, while the program
// trains. The next start then finds it where reading is fast, also if this session saves nothing.
//
// Threads: all members from the session's thread; the copy has a thread and store objects of its own. A read that hangs
// leaves that thread behind.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "holdfast/storage/run/history.h"
#include "holdfast/storage/stores/object_name.h"

namespace holdfast {

class BaseCopy {
 public:
  /// Starts at once. `from`, `home`: the run's folders. `session`: the one that owns the run.
  BaseCopy(const std::string& from, const std::string& home, const storage::Uid& version,
           const storage::SessionOrder& session);
  /// Cancels it.
  ~BaseCopy();

  /// How it ended, once; empty: it has not, or this was returned before.
  std::string take_outcome();
  /// True as soon as it has ended.
  bool wait_for(std::chrono::milliseconds time) const;
  /// Grows while the copy makes progress.
  std::uint64_t pieces() const;
  void cancel();

 private:
  struct Shared;
  static void run(Shared& shared);
  static bool is_room(const Shared& shared);

  std::shared_ptr<Shared> shared_;  // with the thread
};

}  // namespace holdfast
