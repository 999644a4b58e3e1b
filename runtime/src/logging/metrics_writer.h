// A session's metrics: one JSON line per record, appended to the run's metrics/<seq>-<session>.jsonl.
//
//   {"step":1200,"epoch":1,"time":1767225600.125,"loss":0.4173}
//
// Records are held in memory for a few seconds. A session flushes before each save, so the store has the records of
// every step that a resume does not repeat; a resume repeats the steps whose records a kill loses. storage/metrics.h
// reads each step once.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "holdfast/storage/stores/object_name.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast {

/// One thread at a time. The store outlives it; the destructor does not flush.
class MetricsWriter {
 public:
  /// `open`: the session's open entry, which names the object.
  MetricsWriter(storage::Store& store, const storage::Uid& open);

  /// Throws Error(invalid) if log() would refuse `values`.
  static void check(const nlohmann::json& values);
  /// Adds a record; `values` is an object whose members follow step, epoch and time (seconds since 1970). A number that
  /// is not finite becomes the string "nan", "inf" or "-inf", because JSON has no such number. Appends once the oldest
  /// record is older than kHold or there are kHoldBytes. Throws Error(invalid) unless `values` is an object without
  /// these three names.
  storage::Status log(std::uint64_t step, std::uint64_t epoch, const nlohmann::json& values);
  /// Appends the held records. After a failure they stay held for a later attempt, up to kDropBytes: metrics are worth
  /// less than the memory of a training run.
  storage::Status flush();

  static constexpr std::chrono::seconds kHold{3};
  static constexpr std::size_t kHoldBytes = 256 * 1024;
  static constexpr std::size_t kDropBytes = 16 * 1024 * 1024;

 private:
  storage::Store& store_;
  std::string name_;
  std::string held_;
  std::chrono::steady_clock::time_point oldest_;
  bool torn_ = false;  // the last append failed and may have left part of a line
};

}  // namespace holdfast
