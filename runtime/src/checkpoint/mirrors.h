// A run's other places: mirrors, to which saved versions are copied in the background, and folders of earlier output
// that are only searched. Training never waits for any of them: each mirror has a thread of its own, which may hang in
// a mount that does not answer and is then left behind.
//
// Threads: all members from the session's thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/base_copy.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast {

class Mirrors {
 public:
  using Clock = std::chrono::steady_clock;
  using Say = std::function<void(const std::string&)>;
  using Until = std::function<std::optional<Clock::time_point>()>;

  /// Of options mirror and search.
  Mirrors(std::shared_ptr<storage::Store> home, const SessionOptions& options);
  /// Cancels the copies.
  ~Mirrors();

  /// Every other place of the run. One that does not answer within `patience` counts as unreadable.
  std::vector<storage::OtherPlace> places(std::chrono::milliseconds patience);

  /// From now on versions are copied, in the name of this session, which has opened the run with places().
  void start(const storage::RunWriter& writer);
  /// Begins to copy the version that the session continues to home, if it was loaded from another place. Call it after
  /// remove_orphans(), which would take its files for remainders.
  void bring_home(const storage::RunWriter& writer);
  /// A version was acknowledged at home. A mirror that is still busy with an older one skips those in between.
  void saved(const storage::Uid& version);
  /// Versions that a mirror reads, or will read next: home must keep them.
  std::set<storage::Uid> in_use() const;
  /// What happened since the last call.
  void report(const Say& say);
  /// Why this session must stop: a later one has opened the run in a mirror.
  std::optional<std::string> superseded() const;

  /// Ends the copy of the base: waits for it if nothing newer is at home. Call it while the session still owns the run,
  /// because the next one would take a part of it for a remainder. Gives up as finish() does.
  void finish_base(const Until& until, std::chrono::milliseconds patience, const Say& say);
  /// Ends the copies: waits until each mirror holds the newest version, and reports what is where. A mirror that makes
  /// no progress for `patience`, or is not done at `until()`, is given up.
  void finish(const Until& until, std::chrono::milliseconds patience, const Say& say);

 private:
  class Copier;

  template <class Copy>
  static void wait_for(Copy& copy, const std::string& what, const Until& until, std::chrono::milliseconds patience,
                       const Say& say);

  std::shared_ptr<storage::Store> home_;
  std::string run_;
  std::vector<std::string> search_;
  std::vector<std::shared_ptr<Copier>> copiers_;
  std::optional<BaseCopy> base_copy_;
  bool has_saved_ = false;
  std::vector<std::shared_ptr<storage::Store>> searched_;  // found below the folders of option search
};

}  // namespace holdfast
