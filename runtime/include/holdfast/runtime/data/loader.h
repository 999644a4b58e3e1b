// Loader: the batches of a torch::data dataset, in an order and from a position that a checkpoint can hold.
//
//   holdfast::Loader loader(FashionMnist("train").map(Stack<>()), {.batch_size = 64});
//   while (auto batch = loader.next()) { ... }       // one epoch, or what is left of it; call again for the next one
//
// - On several ranks, a loader that a session steps over or tracks gives each rank its part of every batch. batch_size
//   counts the samples of all ranks, so its meaning does not depend on their number. Parts differ by one sample at
//   most. Means that are weighted with weight() give the gradients of the whole batch.
// - The order is a pure function of (seed, epoch) (sample_order.h). The cursor counts the samples of the epoch that
//   were handed out, over all ranks. Seeking costs the same at any position. Each epoch has every sample once.
// - Workers prefetch in order and never move the cursor: the batches do not depend on the number of workers.
// - The dataset is moved in and not copied. If workers > 0, several threads call it at the same time: `get` must be
//   thread-safe, which any `get` that only reads is. Random numbers in it come from sample_generator(index).
// - Any stateless, sized dataset works: derived from torch::data::datasets::Dataset or BatchDataset, mapped or not.
// - The loop receives an exception of the dataset as a holdfast::Error that names the sample. The cursor stays before
//   that batch, so the next call tries it again.
//
// Threads: one at a time. The destructor waits only for the `get` calls in progress.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/data_mistakes.h"
#include "holdfast/runtime/data/sample_generator.h"
#include "holdfast/runtime/data/to_device.h"

namespace holdfast {

/// A class other than `Own` that converts to a whole number, such as a value of a configuration.
template <class T, class Own>
concept StandsForWholeNumber =
    !std::same_as<T, Own> && std::is_class_v<T> && std::convertible_to<const T&, std::int64_t>;

/// Any whole number; the loader refuses one below 1.
class BatchSize {
 public:
  template <std::integral T>
  constexpr BatchSize(T size)  // NOLINT: implicit, as a number is
      : size_(std::in_range<std::int64_t>(size) ? static_cast<std::int64_t>(size) : -1) {}
  template <StandsForWholeNumber<BatchSize> T>
  BatchSize(const T& size)  // NOLINT: as above; a JSON number is one
      : size_(static_cast<std::int64_t>(size)) {}
  constexpr operator std::int64_t() const { return size_; }  // NOLINT: as above

 private:
  std::int64_t size_;
};

struct LoaderOptions {
  BatchSize batch_size = 1;  // samples per step, over all ranks
  bool shuffle = true;       // a different order each epoch; otherwise 0, 1, 2, …
  /// Seeds the order and sample_generator. Default: the session's seed; without a session, the seed of LibTorch's
  /// default CPU generator when the loader is made.
  std::optional<std::uint64_t> seed = std::nullopt;
  int workers = 0;         // threads that prefetch; 0: next() fetches
  bool drop_last = false;  // leave out an epoch's last batch if it is smaller than the others
  int prefetch = 2;        // batches that each worker prefetches, at most
  /// A custom order: returns as many sample indices for an epoch as the dataset has samples. An index may occur several
  /// times or not at all. `shuffle` is then ignored. The function must always return the same order for the same epoch,
  /// because a resume in the middle of an epoch calls it again and compares.
  std::function<std::vector<std::size_t>(std::uint64_t epoch)> order = nullptr;
};

/// The part of a loader that does not depend on the dataset's type: position, state, prefetching.
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
  /// Whether it counts the batches of a program's own range (loop.h) instead of a dataset's samples.
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

namespace detail {

template <class Dataset, class = void>
struct DatasetTraits {
  using Batch = std::nullptr_t;
  static constexpr bool is_dataset = false, is_stateful = false, takes_indices = false;
};

template <class Dataset>
struct DatasetTraits<Dataset, std::void_t<typename Dataset::BatchType, typename Dataset::BatchRequestType,
                                          decltype(Dataset::is_stateful)>> {
  using Batch = typename Dataset::BatchType;
  static constexpr bool is_dataset = true;
  static constexpr bool is_stateful = Dataset::is_stateful;
  static constexpr bool takes_indices =
      std::is_convertible_v<const std::vector<std::size_t>&, typename Dataset::BatchRequestType>;
};

}  // namespace detail

template <class Dataset>
class Loader : public LoaderBase {
  using Traits = detail::DatasetTraits<Dataset>;
  static_assert(Traits::is_dataset,
                "holdfast::Loader takes a torch::data dataset: derive it from torch::data::datasets::Dataset (get) or "
                "BatchDataset (get_batch)");
  static_assert(!Traits::is_stateful,
                "holdfast::Loader cannot seek in a stateful dataset, so a run could not resume in it: make it a "
                "torch::data::datasets::Dataset or BatchDataset that reads any sample by its index");
  static_assert(!Traits::is_dataset || Traits::is_stateful || Traits::takes_indices,
                "holdfast::Loader cannot seek in a stream dataset, so a run could not resume in it: make it a "
                "torch::data::datasets::Dataset or BatchDataset that reads any sample by its index");

 public:
  using Batch = typename Traits::Batch;

  /// Takes ownership of the dataset. Throws Error(invalid) if an option is invalid or the dataset is empty or unsized.
  explicit Loader(Dataset dataset, const LoaderOptions& options = {})
      : Loader(std::make_shared<Dataset>(std::move(dataset)), options) {}

  /// Does not compile; the message states what to write instead.
  template <std::integral BatchSize>
  Loader(Dataset dataset, BatchSize batch_size, typename NotLoaderOptions<BatchSize>::Refused = {});

  Dataset& dataset() { return *dataset_; }

  /// The next batch of this epoch. Empty once at the epoch's end; the call after that begins the next epoch.
  std::optional<Batch> next() {
    const auto batch = next_batch();
    if (!batch) return std::nullopt;
    return std::move(*static_cast<Batch*>(batch.get()));
  }

  /// Like next(), with the batch on `device`. A GPU copies it from pinned memory concurrently with other work; with
  /// workers, the copy of the following batch may already run. Use the batch on the current stream.
  std::optional<Batch> next_on(c10::Device device) {
    const auto batch = next_batch_on(device);
    if (!batch) return std::nullopt;
    return std::move(*static_cast<Batch*>(batch.get()));
  }

  /// The next batch, across the ends of epochs: for a second loader that is used in another loader's loop.
  Batch draw() {
    auto batch = next();
    while (!batch) batch = next();
    return std::move(*batch);
  }

  /// `for (auto& batch : loader)`: the epoch from the cursor on. After a break the loader keeps its position.
  class Iterator {
   public:
    explicit Iterator(Loader& loader) : loader_(&loader), batch_(loader.next()) {}
    Batch& operator*() { return *batch_; }
    Iterator& operator++() {
      batch_ = loader_->next();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return batch_.has_value(); }

   private:
    Loader* loader_;
    std::optional<Batch> batch_;
  };
  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() const { return {}; }

  /// The dataset's samples [first, last), each once, in the dataset's order, in batches of `batch_size`. The loader's
  /// position does not change. session.evaluate() gives each rank its own range.
  class Range {
   public:
    class Iterator {
     public:
      explicit Iterator(Range& range) : range_(&range) { ++*this; }
      Batch& operator*() { return *static_cast<Batch*>(batch_.get()); }
      Batch* operator->() { return &**this; }
      Iterator& operator++() {
        batch_ = range_->next_();
        return *this;
      }
      bool operator!=(std::default_sentinel_t) const { return batch_ != nullptr; }

     private:
      Range* range_;
      std::shared_ptr<void> batch_;
    };
    Range(Loader& loader, std::uint64_t first, std::uint64_t last, std::uint64_t batch_size)
        : next_(loader.in_order(first, last, batch_size)) {}
    /// May be called once.
    Iterator begin() { return Iterator(*this); }
    std::default_sentinel_t end() const { return {}; }

   private:
    std::function<std::shared_ptr<void>()> next_;
  };

 private:
  Loader(std::shared_ptr<Dataset> dataset, const LoaderOptions& options)
      : LoaderBase(options, dataset->size(),
                   [dataset](const std::vector<std::size_t>& indices) -> std::shared_ptr<void> {
                     return std::make_shared<Batch>(dataset->get_batch(indices));
                   },
                   {[](void* batch) { replace(batch, [](Batch b) { return bring_to_pinned_memory(std::move(b)); }); },
                    [](void* batch, c10::Device device) {
                      replace(batch, [device](Batch b) { return bring_to_device(std::move(b), device); });
                    }}),
        dataset_(std::move(dataset)) {}

  // A batch may have const members, so it is constructed again instead of assigned.
  template <class By>
  static void replace(void* batch, By by) {
    auto* const it = static_cast<Batch*>(batch);
    Batch changed = by(std::move(*it));
    std::destroy_at(it);
    std::construct_at(it, std::move(changed));
  }

  std::shared_ptr<Dataset> dataset_;
};

}  // namespace holdfast
