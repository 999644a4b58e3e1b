// BatchFetch: reads one batch of a dataset, in a prefetching worker or in the loop's own thread.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/sample_order.h"

namespace holdfast {

/// Everything that reading a batch needs, by value, because a prefetch may outlive a seek. Throws Error, which names
/// the sample that could not be read.
struct BatchFetch {
  std::function<std::shared_ptr<void>(const std::vector<std::size_t>&)> fetch;
  SampleOrder order;
  std::shared_ptr<const std::vector<std::size_t>> own_order;  // used instead of `order` if not null
  std::uint64_t seed, epoch, begin, end;                      // the rank's part
  std::function<void(void*)> pin = {};                        // if the batch goes to a GPU,
  std::optional<c10::Device> device = {};                     // which is this one

  std::shared_ptr<void> operator()() const;

 private:
  std::shared_ptr<void> read() const;
};

}  // namespace holdfast
