// Rank 0's side of a run: the store with its versions, metrics, log and hints. The session decides what is saved and
// when; other ranks have no manager.
//
// Threads: one at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/mirrors.h"
#include "holdfast/runtime/options/options.h"
#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/stores/store.h"
#include "logging/console.h"
#include "logging/metrics_writer.h"
#include "state/run_state.h"

namespace holdfast {

class CheckpointManager {
 public:
  /// Opens the run's folder without changing it. The console must outlive the manager.
  CheckpointManager(const SessionOptions& options, Console& console);
  ~CheckpointManager();

  /// Takes the run over (O1–O6); `load` as in storage::OpenRequest. Throws Error if that is impossible.
  void open(const SessionOptions& options, const std::string& platform,
            std::function<storage::Status(const storage::VersionReader&)> load);

  Mirrors& mirrors() { return *mirrors_; }
  /// Where the version that was loaded lies, if it is not at home; else empty.
  std::string base_elsewhere() const;
  storage::RunWriter& writer() { return *writer_; }
  const storage::RunWriter& writer() const { return *writer_; }
  MetricsWriter& metrics() { return *metrics_; }
  /// Throws Error if the version cannot be read.
  storage::VersionReader read(const storage::Uid& uid) const;
  std::string place() const { return store_->location(); }

  /// Flushes the metrics, then runs S1–S8: the metrics of steps that a resume from this version does not repeat must be
  /// in the store before the version.
  storage::Result<storage::SavedVersion> save(storage::SaveRequest request);
  /// Ends this session in the journal.
  void close(const std::string& reason, nlohmann::json details);
  /// Removes versions that retention does not keep; not those that a mirror reads.
  storage::Result<std::vector<storage::Uid>> prune(std::uint64_t keep);

  /// Removes payload and temporary files of sessions that ended.
  void remove_orphans();
  /// Begins to copy the base to home in the background, if it was loaded from another place. After remove_orphans().
  void bring_base_home();
  /// Records the step every few seconds, so that the next session can report how much work a sudden end cost.
  void note_step(std::uint64_t step);
  /// How many steps the session that saved `uid` went beyond it; 0 if it recorded none.
  std::uint64_t steps_after(const storage::Uid& uid, std::uint64_t saved_step) const;

 private:
  std::string hint_name(const std::string& session) const { return "hints/" + session + ".step"; }

  Console& console_;
  std::shared_ptr<storage::Store> store_;
  std::unique_ptr<Mirrors> mirrors_;
  std::unique_ptr<storage::RunWriter> writer_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::chrono::steady_clock::time_point next_step_note_;
};

}  // namespace holdfast
