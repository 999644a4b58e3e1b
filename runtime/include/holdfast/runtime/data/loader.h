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

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/data_mistakes.h"
#include "holdfast/runtime/data/loader_base.h"
#include "holdfast/runtime/data/sample_generator.h"
#include "holdfast/runtime/data/to_device.h"

namespace holdfast {
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
class Loader : public detail::LoaderBase {
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
  Loader(Dataset dataset, BatchSize batch_size, typename detail::NotLoaderOptions<BatchSize>::Refused = {});

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
      : LoaderBase(
            options, dataset->size(),
            [dataset](const std::vector<std::size_t>& indices) -> std::shared_ptr<void> {
              return std::make_shared<Batch>(dataset->get_batch(indices));
            },
            {[](void* batch) { replace(batch, [](Batch b) { return detail::bring_to_pinned_memory(std::move(b)); }); },
             [](void* batch, c10::Device device) {
               replace(batch, [device](Batch b) { return detail::bring_to_device(std::move(b), device); });
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
