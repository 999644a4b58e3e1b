// Loader: the batches of a torch::data dataset, in an order and from a position that a checkpoint can hold.
//
//   holdfast::Loader loader(FashionMnist("train").map(Stack<>()), {.batch_size = 64});
//   while (auto batch = loader.next()) { ... }       // one epoch, or what is left of it; call again for the next one
//
// - On several ranks a loader that a session steps over or tracks gives each rank its part of every batch; batch_size
//   counts the samples of all ranks, so it means the same on any number of them. Parts differ by one sample at most,
//   and weight() makes their means one: gradients are those of the whole batch.
// - The order is a pure function of (seed, epoch) (sample_order.h); the cursor counts the epoch's samples that the loop
//   has been given, over all ranks. Seeking costs the same at any position. Every sample comes once per epoch.
// - Workers fetch ahead, in order, and never move the cursor: the batches are the same whatever their number.
// - The dataset is moved in, exists once and is called from several threads at a time where workers > 0: `get` must be
//   safe for that, as any that only reads is. Randomness in it comes from sample_generator(index).
// - Any stateless, sized dataset will do: derived from torch::data::datasets::Dataset or BatchDataset, mapped or not.
// - An exception in the dataset arrives in the loop as holdfast::Error that names the sample; the cursor stays before
//   that batch, so the next call tries it again.
//
// Threads: one at a time. The destructor waits for the `get` calls under way and for nothing else.
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

/// A class other than `Own` that stands for a whole number, such as a value of a configuration.
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
  bool shuffle = true;       // another order each epoch; else 0, 1, 2, …
  /// Of the order and of sample_generator. Default: the session's; without one, the seed of LibTorch's default CPU
  /// generator when the loader is made.
  std::optional<std::uint64_t> seed = std::nullopt;
  int workers = 0;         // threads that fetch ahead; 0: next() fetches
  bool drop_last = false;  // leave out an epoch's last batch where it is smaller than the others
  int prefetch = 2;        // batches each worker is ahead, at most
  /// An order of the program's own: the indices of an epoch's samples, one for each sample of the dataset, of which
  /// some may come twice and others not at all. `shuffle` then says nothing. It must give the same for an epoch
  /// whenever it is asked: a resume in the middle of an epoch asks again and compares.
  std::function<std::vector<std::size_t>(std::uint64_t epoch)> order = nullptr;
};

/// What needs no knowledge of the dataset's type: position, state, prefetching.
class LoaderBase {
 public:
  LoaderBase(const LoaderBase&) = delete;
  LoaderBase& operator=(const LoaderBase&) = delete;

  std::uint64_t size() const;  // samples in the dataset
  std::uint64_t batch_size() const;
  std::uint64_t samples_per_epoch() const;  // size(), less what drop_last leaves out
  std::uint64_t batches_per_epoch() const;
  std::uint64_t seed() const;
  bool is_shuffled() const;

  std::uint64_t epoch() const;          // epochs completed before this one
  std::uint64_t cursor() const;         // samples of this epoch handed out
  std::uint64_t samples_seen() const;   // handed out since the run began
  std::uint64_t batch_samples() const;  // in the batch handed out last
  bool epoch_done() const;              // no batch is left in this epoch
  std::uint64_t samples_left() const;   // in this epoch, of those that are handed out
  std::uint64_t batches_left() const;

  /// From the next batch on, hands out part `rank` of each batch. Throws Error(invalid) where batches have fewer
  /// samples than there are ranks.
  void shard(int rank, int world_size);
  /// Of this rank's mean over its part of the batch handed out last, in the mean of all ranks' means: its share of the
  /// samples times the number of ranks. A rank without samples is given one of another's, at weight 0.
  double weight() const;

  /// Goes to a position; samples_seen becomes what that position means. Throws Error(invalid) beyond the epoch's end.
  void seek(std::uint64_t epoch, std::uint64_t cursor);
  void start_epoch(std::uint64_t epoch) { seek(epoch, 0); }

  /// The position and what it means: epoch, cursor, samples_seen, seed, size, batch_size, shuffle, order; and inside an
  /// epoch that has an order of the program's own, its digest.
  nlohmann::json state() const;
  /// What set_state() would throw; changes nothing.
  void check_state(const nlohmann::json& state) const;
  /// Goes back there, with the seed of then: the order belongs to the run. The batch size is the program's and may
  /// differ, and so may the dataset's size where an epoch begins. Throws Error(misfit) where the position means nothing
  /// here: another dataset size or another order in the middle of an epoch. Changes nothing when it throws. With
  /// --holdfast.allow-dataset-change an epoch whose dataset has another size begins again.
  void set_state(const nlohmann::json& state);
  /// A sentence on what set_state() took up differently; mostly empty.
  const std::string& change() const;
  /// Whether it counts the batches of a program's own range (loop.h) and not a dataset's samples.
  bool counts_batches() const;

  /// How many loaders the process had made before this one: the session knows loaders by the order of their making.
  std::uint64_t number() const;
  static std::uint64_t next_number();
  /// Expires with the loader.
  std::weak_ptr<void> alive() const;

 protected:
  /// Fetches the samples at the given indices as one batch of the dataset's type; called from any thread.
  using Fetch = std::function<std::shared_ptr<void>(const std::vector<std::size_t>& indices)>;

  /// What batches of the dataset's type need to come to a GPU.
  struct Transfer {
    std::function<void(void* batch)> pin;  // called from any thread
    std::function<void(void* batch, c10::Device device)> move;
  };

  LoaderBase(const LoaderOptions& options, std::optional<std::size_t> size, Fetch fetch, Transfer transfer);
  ~LoaderBase();
  /// It counts the batches of a range that the program holds: batches are the program's on every rank.
  void count_batches();
  /// The epoch has so many batches. Throws Error(misfit) where it is under way and had another number.
  void set_batches(std::uint64_t count);
  /// Null once at the end of each epoch; the position is then the start of the next one.
  std::shared_ptr<void> next_batch();
  std::shared_ptr<void> next_batch_on(c10::Device device);

  /// Batches of the dataset's samples [begin, end) in the dataset's own order, null at the end; the position stays. The
  /// loader outlives it.
  std::function<std::shared_ptr<void>()> in_order(std::uint64_t begin, std::uint64_t end, std::uint64_t batch_size);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // owned alone
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

  /// Takes the dataset over. Throws Error(invalid) where the options make no sense or the dataset is empty or unsized.
  explicit Loader(Dataset dataset, const LoaderOptions& options = {})
      : Loader(std::make_shared<Dataset>(std::move(dataset)), options) {}

  /// Says what to write instead.
  template <std::integral BatchSize>
  Loader(Dataset dataset, BatchSize batch_size, typename NotLoaderOptions<BatchSize>::Refused = {});

  Dataset& dataset() { return *dataset_; }

  /// The next batch of this epoch. Empty once at the epoch's end; the call after that begins the next epoch.
  std::optional<Batch> next() {
    const auto batch = next_batch();
    if (!batch) return std::nullopt;
    return std::move(*static_cast<Batch*>(batch.get()));
  }

  /// The same, on the device. A GPU fetches it from pinned memory beside its other work, and where workers fetch ahead
  /// the batch after it is on its way, too. Use it on the current stream.
  std::optional<Batch> next_on(c10::Device device) {
    const auto batch = next_batch_on(device);
    if (!batch) return std::nullopt;
    return std::move(*static_cast<Batch*>(batch.get()));
  }

  /// The next batch, on and on through the epochs: for a second loader that the loop of another one draws from.
  Batch draw() {
    auto batch = next();
    while (!batch) batch = next();
    return std::move(*batch);
  }

  /// `for (auto& batch : loader)`: the epoch from the cursor on. After a break the loader stands where the loop left
  /// it.
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

  /// The dataset's samples [first, last), once each and in its own order, `batch_size` at a time; the loader's position
  /// stays. session.evaluate() gives each rank a range of its own.
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
    /// Once.
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

  // A batch may have members that are constant: it is made anew, not assigned to.
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
