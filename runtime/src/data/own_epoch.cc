#include "holdfast/runtime/data/own_epoch.h"

#include <cstddef>
#include <vector>

namespace holdfast::detail {

BatchCounter::BatchCounter()
    : LoaderBase({.batch_size = 1, .shuffle = false}, 1,
                 [](const std::vector<std::size_t>&) { return std::make_shared<char>(); }, {}) {
  count_batches();
}

}  // namespace holdfast::detail
