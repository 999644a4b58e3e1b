// A loader's members. Three files implement it: loader_base.cc (options, position, parts of ranks), loader_batches.cc
// (reading batches, also ahead of time), loader_state.cc (what a checkpoint holds).
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "data/batch_fetch.h"
#include "data/batch_upload.h"
#include "data/custom_order.h"
#include "data/prefetch_queue.h"
#include "holdfast/runtime/data/loader_base.h"

namespace holdfast::detail {

struct LoaderBase::Impl {
  Impl(const LoaderOptions& given, std::optional<std::size_t> dataset_size, Fetch fetcher, Transfer how);

  std::uint64_t samples_per_epoch() const { return options.drop_last ? size - size % batch_size : size; }
  // The batch that begins at a position is [position, end); there is no batch if both are equal.
  std::uint64_t batch_end(std::uint64_t position) const;
  // This rank's part of [begin, end): the first `n % world` ranks have one sample more.
  std::pair<std::uint64_t, std::uint64_t> part(std::uint64_t begin, std::uint64_t end) const;
  const CustomOrder::Epoch& own_order(std::uint64_t of_epoch) const { return custom_order.of(of_epoch, size); }

  void go_to(std::uint64_t to_epoch, std::uint64_t to_cursor);
  // Drops what was read ahead.
  void forget_ahead();

  std::shared_ptr<void> next();
  std::shared_ptr<void> fetch_batch();
  BatchFetch batch_at(std::uint64_t position) const;
  using Position = std::pair<std::uint64_t, std::uint64_t>;
  Position position() const { return {cursor, seen}; }
  // Runs `move`, which moves a batch to its device. If it throws, goes back to the position before that batch, so that
  // the next call tries it again.
  void or_go_back(const Position& before, const std::function<void()>& move);

  const std::uint64_t number;
  LoaderOptions options;
  CustomOrder custom_order;
  Fetch fetch;
  Transfer transfer;
  std::uint64_t seed;
  std::uint64_t size = 0;
  std::uint64_t batch_size = 0;
  std::uint64_t epoch = 0;
  std::uint64_t cursor = 0;
  std::uint64_t seen = 0;
  std::uint64_t last_batch = 0;
  double weight = 1;
  std::uint64_t rank = 0;
  std::uint64_t world_size = 1;
  std::uint64_t pushed = 0;  // the end of what the queue holds
  bool watched = false;      // whether the first batch was checked for draws from the default generator
  std::unique_ptr<PrefetchQueue> queue;
  std::optional<c10::Device> gpu;  // the device of batches
  std::optional<BatchUpload> upload;
  std::shared_ptr<void> uploaded;  // the queue's first batch, if its copy to the GPU has started
  bool counts_batches = false;
  std::string change;
};

}  // namespace holdfast::detail
