// LoaderBase: the part of a Loader (loader.h) that does not depend on the dataset's type: position, state, prefetching.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/runtime/data/loader_options.h"

namespace holdfast::detail {

class LoaderBase {
 public:
  LoaderBase(const LoaderBase&) = delete;
  LoaderBase& operator=(const LoaderBase&) = delete;

  std::uint64_t size() const;  // samples in the dataset
  std::uint64_t batch_size() const;
  std::uint64_t samples_per_epoch() const;  // size() without the samples that drop_last leaves out
  std::uint64_t batches_per_epoch() const;
  std::uint64_t seed() const;
  bool is_shuffled() const;

  std::uint64_t epoch() const;          // epochs completed before this one
  std::uint64_t cursor() const;         // samples of this epoch handed out
  std::uint64_t samples_seen() const;   // handed out since the run began
  std::uint64_t batch_samples() const;  // in the batch handed out last
  bool epoch_done() const;              // no batch is left in this epoch
  std::uint64_t samples_left() const;   // in this epoch, without those that drop_last leaves out
  std::uint64_t batches_left() const;

  /// From the next batch on, hands out part `rank` of each batch. Throws Error(invalid) if batches have fewer samples
  /// than there are ranks.
  void shard(int rank, int world_size);
  /// The weight of this rank's mean over its part of the last batch when all ranks' means are averaged: its share of
  /// the samples times the number of ranks. A rank without samples gets a sample of another rank, with weight 0.
  double weight() const;

  /// Moves to a position and sets samples_seen accordingly. Throws Error(invalid) beyond the epoch's end.
  void seek(std::uint64_t epoch, std::uint64_t cursor);
  void start_epoch(std::uint64_t epoch) { seek(epoch, 0); }

  /// The position and what defines it: epoch, cursor, samples_seen, seed, size, batch_size, shuffle, order; in the
  /// middle of an epoch with a custom order, also the digest of that order.
  nlohmann::json state() const;
  /// Throws what set_state() would throw; changes nothing.
  void check_state(const nlohmann::json& state) const;
  /// Restores the position and the saved seed, because the order belongs to the run. The batch size is the program's
  /// and may differ; between epochs the dataset's size may also differ. Throws Error(misfit), and changes nothing, if
  /// the position is incompatible: another dataset size or another order in the middle of an epoch. With
  /// --holdfast.allow-dataset-change an epoch whose dataset has another size starts again.
  void set_state(const nlohmann::json& state);
  /// A sentence about what set_state() found changed (batch size, dataset size); usually empty.
  const std::string& change() const;
  /// Whether it counts the batches of a program's own range (own_epoch.h) instead of a dataset's samples.
  bool counts_batches() const;

  /// The number of loaders that the process made before this one. The session identifies loaders by their order of
  /// creation.
  std::uint64_t number() const;
  static std::uint64_t next_number();
  /// Expires with the loader.
  std::weak_ptr<void> alive() const;

 protected:
  /// Fetches the samples at the given indices as one batch of the dataset's type; called from any thread.
  using Fetch = std::function<std::shared_ptr<void>(const std::vector<std::size_t>& indices)>;

  /// How batches of the dataset's type are moved to a GPU.
  struct Transfer {
    std::function<void(void* batch)> pin;  // called from any thread
    std::function<void(void* batch, c10::Device device)> move;
  };

  LoaderBase(const LoaderOptions& options, std::optional<std::size_t> size, Fetch fetch, Transfer transfer);
  ~LoaderBase();
  /// Makes it count the batches of a range that the program holds. Each rank has the program's own batches.
  void count_batches();
  /// Sets the number of batches of the epoch. Throws Error(misfit) if the epoch has begun with another number.
  void set_batches(std::uint64_t count);
  /// Null once at the end of each epoch; the position is then the start of the next one.
  std::shared_ptr<void> next_batch();
  std::shared_ptr<void> next_batch_on(c10::Device device);

  /// Batches of the dataset's samples [begin, end) in the dataset's own order, null at the end. The position does not
  /// change. The loader must outlive the function.
  std::function<std::shared_ptr<void>()> in_order(std::uint64_t begin, std::uint64_t end, std::uint64_t batch_size);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // never shared; alive() observes it
};

}  // namespace holdfast::detail
