// Exhaustive check: for every image that a crash may leave, at every call of a sequence of operations, the next start
// of the program must find what was promised.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "simulated_disk.h"
#include "workload.h"

namespace holdfast::storage::crash {

/// The initial run and the disk of a sequence.
struct Setting {
  bool with_versions = false;  // the run has three versions of an earlier session
  bool refuse_link = false;
  bool refuse_rename_exclusive = false;
  bool second_first = false;  // the second of two parts that may run at the same time runs first

  std::string text() const;
};

using Sequence = std::vector<Operation>;
std::string to_string(const Sequence& sequence);
/// All sequences of at most `length` operations, shorter ones first. The empty one is only the run's first start.
std::vector<Sequence> all_sequences(std::size_t length);

struct Run {
  Setting setting;
  Sequence sequence;
};
/// All sequences of at most `length` operations on a run that publishes by link; at most two operations for all other
/// settings. Shorter ones first.
std::vector<Run> all_runs(std::size_t length);

/// The part of all images that is recovered: those whose digest is `remainder` modulo `divisor`.
struct Slice {
  std::uint64_t divisor = 1;
  std::uint64_t remainder = 0;
};

/// The kinds of crash that are tried at each call.
enum class Crash {
  power,         // the power is lost at once
  process_first  // the process dies, a second one opens, cleans, saves; after each of these the power is lost
};

/// One thread for each object; merge() adds the results.
class CrashSearch {
 public:
  explicit CrashSearch(Crash crash, Slice slice = {}) : crash_(crash), slice_(slice) {}

  /// Breaks the product on every disk that the search uses from now on.
  std::function<void(SimulatedDisk&)> sabotage;
  bool stop_at_first = false;
  std::size_t most_images = ~std::size_t{0};  // at one call, because a disk without its syncs has too many

  /// Runs one sequence and crashes at every call of its last operation.
  void run(const Run& run);
  void merge(const CrashSearch& other);

  std::size_t states() const { return images_.size(); }
  std::size_t recoveries() const { return recovered_.size(); }
  const std::vector<std::string>& broken() const { return broken_; }
  bool done() const { return stop_at_first && !broken_.empty(); }

 private:
  struct Hash {
    std::size_t operator()(const Digest& digest) const { return static_cast<std::size_t>(digest.high); }
  };
  using Keys = std::unordered_set<Digest, Hash>;
  void equip(SimulatedDisk& disk) const;
  void look(const SimulatedDisk& disk, const Workload& workload);
  void lose_power(const DiskContent& content, const Workload& workload, bool restart);
  void lose_process(const DiskContent& content, const Workload& workload);
  void report(const std::string& what);

  Crash crash_;
  Slice slice_;
  Setting setting_;
  std::string context_;
  Keys images_;
  Keys recovered_;  // image and what was promised
  std::vector<std::string> broken_;
};

/// Runs these on one thread for each processor, at most four.
CrashSearch search_all(Crash crash, Slice slice, const std::vector<Run>& runs);

}  // namespace holdfast::storage::crash
