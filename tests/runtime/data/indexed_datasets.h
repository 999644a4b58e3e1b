// Datasets whose samples are their own indices, and what a loader made of them: the indices of its batches, and the
// error that it threw.
#pragma once

#include <torch/data/datasets/base.h>
#include <torch/data/example.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/loader.h"
#include "holdfast/runtime/error.h"
#include "message_parts.h"

namespace indexed_datasets {

using holdfast::Error;
using holdfast::storage::StatusCode;
using torch::data::Example;

// A sample is its own index and two numbers of its generator; `before` runs first.
struct Numbers : torch::data::datasets::Dataset<Numbers> {
  explicit Numbers(std::size_t size, std::function<void(std::size_t)> before = {})
      : size_(size), before_(std::move(before)) {}
  Example<> get(std::size_t index) override {
    if (before_) before_(index);
    auto generator = holdfast::sample_generator(index);
    return {at::rand({2}, generator), at::scalar_tensor(static_cast<std::int64_t>(index), at::kLong)};
  }
  std::optional<std::size_t> size() const override { return size_; }
  std::size_t size_;
  std::function<void(std::size_t)> before_;
};

// Batches only, no get.
struct Columns : torch::data::datasets::BatchDataset<Columns, std::vector<std::size_t>> {
  std::vector<std::size_t> get_batch(c10::ArrayRef<std::size_t> indices) override {
    for (auto index : indices) {
      if (index == bad) throw std::runtime_error("row is torn");
    }
    if (indices.size() > 1 && together_bad) throw std::runtime_error("rows of unequal length");
    return indices.vec();
  }
  std::optional<std::size_t> size() const override { return 10; }
  std::size_t bad = 99;
  bool together_bad = false;
};

inline std::vector<std::int64_t> indices_of(const Example<>& batch) {
  return {batch.target.data_ptr<std::int64_t>(), batch.target.data_ptr<std::int64_t>() + batch.target.numel()};
}

// One epoch, or its rest.
template <class AnyLoader>
std::vector<std::int64_t> drain(AnyLoader& loader) {
  std::vector<std::int64_t> seen;
  while (auto batch = loader.next()) {
    const auto indices = indices_of(*batch);
    seen.insert(seen.end(), indices.begin(), indices.end());
  }
  return seen;
}

}  // namespace indexed_datasets
