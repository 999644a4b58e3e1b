#include "data/custom_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {

const CustomOrder::Epoch& CustomOrder::of(std::uint64_t epoch, std::uint64_t size) const {
  if (!order_ || (last_.indices && last_.number == epoch)) return last_;
  std::vector<std::size_t> indices = order_(epoch);
  if (indices.size() != size) {
    throw Error(
        storage::StatusCode::invalid,
        fmt::format("LoaderOptions::order gave {} indices for epoch {} and the dataset has {} samples: give one "
                    "index for each sample; an index may occur several times",
                    indices.size(), epoch, size));
  }
  const auto beyond = std::find_if(indices.begin(), indices.end(), [&](std::size_t index) { return index >= size; });
  if (beyond != indices.end()) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("LoaderOptions::order gave index {} for epoch {} and the dataset has {} samples, 0 to {}",
                            *beyond, epoch, size, size - 1));
  }
  const std::string digest = storage::digest_of(std::as_bytes(std::span(indices))).hex();
  last_ = {epoch, std::make_shared<const std::vector<std::size_t>>(std::move(indices)), digest};
  return last_;
}

}  // namespace holdfast
