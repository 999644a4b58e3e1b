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

#include "holdfast/runtime/options/options.h"
#include "holdfast/storage/run/history.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast {

class Mirrors {
 public:
  using Clock = std::chrono::steady_clock;
  using Say = std::function<void(const std::string&)>;

  /// Of options mirror and search.
  Mirrors(std::shared_ptr<storage::Store> home, const SessionOptions& options);
  /// Cancels the copies.
  ~Mirrors();

  /// Every other place of the run. One that does not answer within `patience` counts as unreadable.
  std::vector<storage::OtherPlace> places(std::chrono::milliseconds patience);

  /// From now on versions are copied, in the name of this session, which has opened the run with places().
  void start(const storage::RunWriter& writer);
  /// A version was acknowledged at home. A mirror that is still busy with an older one skips those in between.
  void saved(const storage::Uid& version);
  /// Versions that a mirror reads, or will read next: home must keep them.
  std::set<storage::Uid> in_use() const;
  /// What happened since the last call.
  void report(const Say& say);
  /// Why this session must stop: a later one has opened the run in a mirror.
  std::optional<std::string> superseded() const;

  /// Ends the copies: waits until each mirror holds the newest version, and reports what is where. A mirror that makes
  /// no progress for `patience`, or is not done at `until()`, is given up.
  void finish(const std::function<std::optional<Clock::time_point>()>& until, std::chrono::milliseconds patience,
              const Say& say);

 private:
  class Copier;

  std::shared_ptr<storage::Store> home_;
  std::string run_;
  std::vector<std::string> search_;
  std::vector<std::shared_ptr<Copier>> copiers_;
  std::vector<std::shared_ptr<storage::Store>> searched_;  // found below the folders of option search
};

}  // namespace holdfast
