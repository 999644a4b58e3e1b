// The options of a Loader.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/whole_number.h"

namespace holdfast {

/// Any whole number; the loader refuses one below 1.
class BatchSize {
 public:
  template <std::integral T>
  constexpr BatchSize(T size)  // NOLINT: implicit, as a number is
      : size_(std::in_range<std::int64_t>(size) ? static_cast<std::int64_t>(size) : -1) {}
  template <detail::StandsForWholeNumber<BatchSize> T>
  BatchSize(const T& size)  // NOLINT: as above, such as a JSON number
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

}  // namespace holdfast
