#include "holdfast/runtime/data/loader.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <tuple>

#include "data/batch_upload.h"
#include "data/dataset_change.h"
#include "data/prefetch_queue.h"
#include "data/sample_order.h"
#include "data/sample_scope.h"
#include "data/session_seed.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast {
namespace {

using storage::StatusCode;

struct Failure {
  StatusCode code = StatusCode::unreadable;
  std::string text;
};

// Call inside a catch block.
Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const c10::Error& error) {
    return {StatusCode::unreadable, error.what_without_backtrace()};
  } catch (const std::exception& error) {
    return {StatusCode::unreadable, error.what()};
  } catch (...) {
    return {StatusCode::unreadable, "an exception that is not a std::exception"};
  }
}

// Everything that a fetch needs, by value, because a prefetch may outlive a seek.
struct BatchFetch {
  std::function<std::shared_ptr<void>(const std::vector<std::size_t>&)> fetch;
  SampleOrder order;
  std::shared_ptr<const std::vector<std::size_t>> own_order;  // used instead of `order` if not null
  std::uint64_t seed, epoch, begin, end;                      // the rank's part
  std::function<void(void*)> pin = {};                        // if the batch goes to a GPU,
  std::optional<c10::Device> device = {};                     // which is this one

  std::shared_ptr<void> operator()() const {
    const auto batch = read();
    if (pin && batch) {
      const c10::DeviceGuard on_device(*device);  // otherwise a worker would create a context on the first GPU
      pin(batch.get());
    }
    return batch;
  }

  std::shared_ptr<void> read() const {
    std::vector<std::size_t> indices;
    indices.reserve(end - begin);
    for (auto position = begin; position < end; ++position) {
      indices.push_back(own_order ? (*own_order)[position] : order[position]);
    }
    SampleScope scope(seed, epoch);
    Failure failure;
    try {
      return fetch(indices);
    } catch (...) {
      failure = current_failure();
    }
    // get_batch does not tell which sample failed, so each sample is read alone: the faulty one fails again.
    for (std::size_t i = 0; i < indices.size(); ++i) {
      try {
        fetch({indices[i]});
      } catch (...) {
        failure = current_failure();
        throw Error(failure.code, fmt::format("sample {} of the dataset could not be read (epoch {}, position {}): {}",
                                              indices[i], epoch, begin + i, failure.text));
      }
    }
    throw Error(failure.code,
                fmt::format("the batch of samples {} could not be read, though each of them can alone (epoch {}, "
                            "position {}): {}",
                            fmt::join(indices, ", "), epoch, begin, failure.text));
  }
};

at::Tensor default_generator_state() {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

std::uint64_t default_seed() {
  if (const auto seed = session_seed()) return *seed;
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard lock(generator.mutex());
  return generator.current_seed();
}

[[noreturn]] void refuse(const std::string& sentence) { throw Error(StatusCode::invalid, sentence); }

// Whether a loader's state is inside an epoch: only some of the epoch's samples were handed out.
bool is_inside_an_epoch(const nlohmann::json& state, bool drop_last) {
  const std::uint64_t cursor = state.at("cursor"), size = state.at("size");
  const std::uint64_t batch = std::max(std::uint64_t{1}, state.value("batch_size", std::uint64_t{1}));
  return cursor != 0 && cursor != size && !(drop_last && cursor == size - size % batch);
}

std::atomic<std::uint64_t> loaders_made{0};

}  // namespace

struct LoaderBase::Impl {
  const std::uint64_t number = loaders_made++;

  Impl(const LoaderOptions& given, std::optional<std::size_t> dataset_size, Fetch fetcher, Transfer how)
      : options(given),
        fetch(std::move(fetcher)),
        transfer(std::move(how)),
        seed(given.seed ? *given.seed : default_seed()) {
    if (!dataset_size)
      refuse("the dataset has no size, so its samples cannot be visited once per epoch: return one from size()");
    size = *dataset_size;
    if (size == 0) refuse("the dataset is empty: there is no sample to make a batch of");
    if (options.batch_size < 1)
      refuse(fmt::format("batch_size is {}: it must be at least 1", std::int64_t{options.batch_size}));
    if (options.workers < 0) refuse(fmt::format("workers is {}: it must be 0 or more", options.workers));
    if (options.prefetch < 1) refuse(fmt::format("prefetch is {}: it must be at least 1", options.prefetch));
    batch_size = static_cast<std::uint64_t>(options.batch_size);
    if (options.drop_last && size < batch_size) {
      refuse(
          fmt::format("drop_last leaves no batch: the dataset has {} samples and batch_size is {}", size, batch_size));
    }
  }

  std::uint64_t samples_per_epoch() const { return options.drop_last ? size - size % batch_size : size; }

  // The batch that begins at a position is [position, end); there is no batch if both are equal.
  std::uint64_t batch_end(std::uint64_t position) const {
    const auto end = std::min(position + batch_size, size);
    return options.drop_last && end - position < batch_size ? position : end;
  }

  // This rank's part of [begin, end): the first `n % world` ranks have one sample more.
  std::pair<std::uint64_t, std::uint64_t> part(std::uint64_t begin, std::uint64_t end) const {
    const std::uint64_t each = (end - begin) / world_size, longer = (end - begin) % world_size;
    const std::uint64_t first = begin + rank * each + std::min(rank, longer);
    return {first, first + each + (rank < longer ? 1 : 0)};
  }

  struct OwnOrder {
    std::uint64_t epoch = 0;
    std::shared_ptr<const std::vector<std::size_t>> indices;  // null: no custom order
    std::string digest;
  };

  // The program's order, if it has one. The program is asked once an epoch.
  const OwnOrder& own_order(std::uint64_t of_epoch) const {
    if (!options.order || (last_order.indices && last_order.epoch == of_epoch)) return last_order;
    std::vector<std::size_t> indices = options.order(of_epoch);
    if (indices.size() != size) {
      refuse(
          fmt::format("LoaderOptions::order gave {} indices for epoch {} and the dataset has {} samples: give one for "
                      "each, of which some may be alike",
                      indices.size(), of_epoch, size));
    }
    const auto beyond = std::find_if(indices.begin(), indices.end(), [&](std::size_t index) { return index >= size; });
    if (beyond != indices.end()) {
      refuse(fmt::format("LoaderOptions::order gave index {} for epoch {} and the dataset has {} samples, 0 to {}",
                         *beyond, of_epoch, size, size - 1));
    }
    const std::string digest = storage::digest_of(std::as_bytes(std::span(indices))).hex();
    last_order = {of_epoch, std::make_shared<const std::vector<std::size_t>>(std::move(indices)), digest};
    return last_order;
  }

  BatchFetch batch_at(std::uint64_t position) const {
    auto [begin, end] = part(position, batch_end(position));
    if (begin == end) begin = position, end = position + 1;  // with weight 0, so that all ranks do the same
    BatchFetch batch{
        fetch, SampleOrder(size, seed, epoch, options.shuffle), own_order(epoch).indices, seed, epoch, begin, end};
    if (gpu) batch.pin = transfer.pin, batch.device = gpu;
    return batch;
  }

  std::shared_ptr<void> fetch_batch() {
    if (options.workers == 0) return batch_at(cursor)();
    if (!queue) queue = std::make_unique<PrefetchQueue>(options.workers);
    if (queue->size() == 0) pushed = cursor;
    const auto window = static_cast<std::size_t>(options.workers) * static_cast<std::size_t>(options.prefetch);
    while (queue->size() < window && batch_end(pushed) > pushed) {
      queue->push(batch_at(pushed));
      pushed = batch_end(pushed);
    }
    try {
      return queue->pop();
    } catch (...) {
      queue->clear();  // the next call fetches this batch again
      throw;
    }
  }

  std::shared_ptr<void> next();

  // The position of the loop: a batch that cannot be moved to its device does not change it.
  std::pair<std::uint64_t, std::uint64_t> position() const { return {cursor, seen}; }

  void or_go_back(const std::pair<std::uint64_t, std::uint64_t>& position, const std::function<void()>& act) {
    try {
      act();
    } catch (...) {
      forget_ahead();
      std::tie(cursor, seen) = position;
      throw;
    }
  }

  void forget_ahead() {
    if (queue) queue->clear();
    uploaded.reset();
  }

  void go_to(std::uint64_t to_epoch, std::uint64_t to_cursor) {
    forget_ahead();
    epoch = to_epoch;
    cursor = to_cursor;
    last_batch = 0;
  }

  LoaderOptions options;
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
  mutable OwnOrder last_order;
  bool counts_batches = false;
  std::string change;
};

LoaderBase::LoaderBase(const LoaderOptions& options, std::optional<std::size_t> size, Fetch fetch, Transfer transfer)
    : impl_(std::make_unique<Impl>(options, size, std::move(fetch), std::move(transfer))) {}

LoaderBase::~LoaderBase() = default;

std::uint64_t LoaderBase::size() const { return impl_->size; }
std::uint64_t LoaderBase::batch_size() const { return impl_->batch_size; }
std::uint64_t LoaderBase::samples_per_epoch() const { return impl_->samples_per_epoch(); }
std::uint64_t LoaderBase::batches_per_epoch() const {
  return (impl_->samples_per_epoch() + impl_->batch_size - 1) / impl_->batch_size;
}
std::uint64_t LoaderBase::seed() const { return impl_->seed; }
bool LoaderBase::is_shuffled() const { return impl_->options.shuffle; }
const std::string& LoaderBase::change() const { return impl_->change; }
bool LoaderBase::counts_batches() const { return impl_->counts_batches; }
void LoaderBase::count_batches() { impl_->counts_batches = true; }
std::uint64_t LoaderBase::epoch() const { return impl_->epoch; }
std::uint64_t LoaderBase::cursor() const { return impl_->cursor; }
std::uint64_t LoaderBase::number() const { return impl_->number; }
std::uint64_t LoaderBase::next_number() { return loaders_made; }
std::weak_ptr<void> LoaderBase::alive() const { return impl_; }
std::uint64_t LoaderBase::samples_seen() const { return impl_->seen; }
std::uint64_t LoaderBase::batch_samples() const { return impl_->last_batch; }
bool LoaderBase::epoch_done() const { return impl_->batch_end(impl_->cursor) == impl_->cursor; }

std::shared_ptr<void> LoaderBase::next_batch() {
  if (impl_->uploaded) impl_->forget_ahead();  // its device may not be the one wanted now
  return impl_->next();
}

std::shared_ptr<void> LoaderBase::Impl::next() {
  const auto end = batch_end(cursor);
  if (end == cursor) {
    go_to(epoch + 1, 0);
    return nullptr;
  }
  // Nothing else draws while the loop waits here for its first batch, so `get` moved a generator that moved.
  const auto before = watched ? at::Tensor() : default_generator_state();
  auto batch = fetch_batch();
  if (!watched && !same_bytes(before, default_generator_state())) {
    std::fputs(
        "holdfast: the dataset draws from LibTorch's default generator while it reads a sample; with loader workers "
        "that makes every run different: draw from holdfast::sample_generator(index) instead\n",
        stderr);
  }
  watched = true;
  last_batch = end - cursor;
  const auto [first, last] = part(cursor, end);
  weight = world_size == 1 ? 1.0 : static_cast<double>((last - first) * world_size) / static_cast<double>(last_batch);
  seen += last_batch;
  cursor = end;
  return batch;
}

std::shared_ptr<void> LoaderBase::next_batch_on(c10::Device device) {
  auto& self = *impl_;
  if (!device.is_cuda()) {
    const auto position = self.position();
    const auto batch = next_batch();
    if (batch) self.or_go_back(position, [&] { self.transfer.move(batch.get(), device); });
    return batch;
  }
  if (self.gpu != device) {
    self.forget_ahead();  // it was not pinned
    self.gpu = device;
    self.upload.emplace(device);
  }
  const auto position = self.position();
  const auto batch = self.next();
  if (!batch) return batch;
  const auto send = [&](const std::shared_ptr<void>& one) {
    self.upload->begin([&] { self.transfer.move(one.get(), device); });
  };
  if (batch != self.uploaded) self.or_go_back(position, [&] { send(batch); });
  self.upload->arrive();
  self.uploaded = self.queue ? self.queue->front_if_done() : nullptr;
  try {
    if (self.uploaded) send(self.uploaded);
  } catch (...) {
    self.forget_ahead();  // the next call fetches it again and reports the error
  }
  return batch;
}

std::uint64_t LoaderBase::samples_left() const {
  const std::uint64_t left = impl_->size - impl_->cursor;
  return impl_->options.drop_last ? left - left % impl_->batch_size : left;
}

std::uint64_t LoaderBase::batches_left() const { return (samples_left() + impl_->batch_size - 1) / impl_->batch_size; }

double LoaderBase::weight() const { return impl_->weight; }

void LoaderBase::shard(int rank, int world_size) {
  auto& self = *impl_;
  const auto ranks = static_cast<std::uint64_t>(world_size);
  if (self.batch_size < ranks) {
    refuse(
        fmt::format("batch_size is {} for {} ranks, and some would never have a sample: it counts the samples of all "
                    "ranks together, so make it at least {}, best a multiple of it",
                    self.batch_size, ranks, ranks));
  }
  if (self.rank == static_cast<std::uint64_t>(rank) && self.world_size == ranks) return;
  self.rank = static_cast<std::uint64_t>(rank);
  self.world_size = ranks;
  self.forget_ahead();
}

std::function<std::shared_ptr<void>()> LoaderBase::in_order(std::uint64_t begin, std::uint64_t end,
                                                            std::uint64_t batch_size) {
  struct Reading {
    std::uint64_t next;
    std::unique_ptr<PrefetchQueue> queue;
  };
  auto reading = std::make_shared<Reading>();
  reading->next = begin;
  if (impl_->options.workers > 0) reading->queue = std::make_unique<PrefetchQueue>(impl_->options.workers);
  const auto window = static_cast<std::size_t>(impl_->options.workers * impl_->options.prefetch);
  return [this, reading, end, batch_size, window]() -> std::shared_ptr<void> {
    const Impl& self = *impl_;
    const auto take = [&] {
      const auto first = reading->next;
      reading->next = std::min(first + batch_size, end);
      return BatchFetch{self.fetch,   SampleOrder(self.size, self.seed, self.epoch, /*shuffle=*/false),
                        nullptr,      self.seed,
                        self.epoch,   first,
                        reading->next};
    };
    if (!reading->queue) return reading->next < end ? take()() : nullptr;
    while (reading->queue->size() < window && reading->next < end) reading->queue->push(take());
    return reading->queue->size() > 0 ? reading->queue->pop() : nullptr;
  };
}

void LoaderBase::seek(std::uint64_t epoch, std::uint64_t cursor) {
  if (cursor > impl_->size) {
    refuse(fmt::format("cannot seek to sample {} of an epoch: the dataset has {} samples", cursor, impl_->size));
  }
  impl_->go_to(epoch, cursor);
  impl_->seen = epoch * impl_->samples_per_epoch() + cursor;
}

nlohmann::json LoaderBase::state() const {
  const auto& self = *impl_;
  nlohmann::json state = {{"epoch", self.epoch},
                          {"cursor", self.cursor},
                          {"samples_seen", self.seen},
                          {"seed", self.seed},
                          {"size", self.size},
                          {"batch_size", self.batch_size},
                          {"shuffle", self.options.shuffle},
                          {"order", kSampleOrderVersion}};
  if (self.options.order && is_inside_an_epoch(state, self.options.drop_last)) {
    state["own_order"] = self.own_order(self.epoch).digest;
  }
  return state;
}

void LoaderBase::check_state(const nlohmann::json& state) const {
  const auto& self = *impl_;
  const auto misfit = [](const std::string& sentence) -> void { throw Error(StatusCode::misfit, sentence); };
  std::uint64_t epoch = 0, cursor = 0, seen = 0, seed = 0, size = 0;
  bool shuffle = false;
  int order = 0;
  try {
    state.at("epoch").get_to(epoch);
    state.at("cursor").get_to(cursor);
    state.at("samples_seen").get_to(seen);
    state.at("seed").get_to(seed);
    state.at("size").get_to(size);
    state.at("shuffle").get_to(shuffle);
    state.at("order").get_to(order);
  } catch (const nlohmann::json::exception& error) {
    misfit(fmt::format("what the checkpoint holds is not a loader's state: {}", error.what()));
  }
  if (cursor > size) {
    misfit(fmt::format("the checkpoint's loader is at sample {} of a dataset of {}", cursor, size));
  }
  const bool inside_an_epoch = is_inside_an_epoch(state, self.options.drop_last);
  if (self.counts_batches) return;  // the number of batches is checked when the epoch's steps begin
  if (size != self.size && inside_an_epoch) {
    if (dataset_change_is_allowed()) return;
    misfit(
        fmt::format("the dataset has {} samples, and the checkpoint was made inside epoch {} when it had {}: use the "
                    "same data until that epoch is over, begin it again with --holdfast.allow-dataset-change, or begin "
                    "a new run",
                    self.size, epoch + 1, size));
  }
  const bool own_order = self.options.order != nullptr;
  if (inside_an_epoch && own_order != state.contains("own_order")) {
    misfit(fmt::format(
        "the checkpoint was made inside epoch {} {} LoaderOptions::order, and the program {}: samples would "
        "come twice or never; change it back until the epoch is over",
        epoch + 1, own_order ? "without" : "with an order of the program's own, by",
        own_order ? "gives one" : "gives none"));
  }
  if (inside_an_epoch && own_order) {
    if (state.at("own_order") == self.own_order(epoch).digest) return;
    misfit(fmt::format(
        "LoaderOptions::order gives another order for epoch {} than when the checkpoint was made inside it: "
        "make it a function of the epoch alone, such as a shuffle by a generator that it seeds with it",
        epoch + 1));
  }
  if (inside_an_epoch && shuffle != self.options.shuffle) {
    misfit(
        fmt::format("the checkpoint was made inside epoch {} with shuffle = {} and the program says {}: samples "
                    "would come twice or never; change shuffle back until the epoch is over",
                    epoch + 1, shuffle, self.options.shuffle));
  }
  if (inside_an_epoch && shuffle && order != kSampleOrderVersion) {
    misfit(
        fmt::format("the checkpoint was made inside an epoch whose order is of version {} and this Holdfast knows "
                    "version {}: continue with the one that made it",
                    order, kSampleOrderVersion));
  }
}

void LoaderBase::set_state(const nlohmann::json& state) {
  check_state(state);
  auto& self = *impl_;
  const std::uint64_t epoch = state["epoch"], size = state["size"];
  std::uint64_t cursor = state["cursor"];
  const auto batch_size = state.value("batch_size", self.batch_size);
  self.change.clear();
  if (!self.counts_batches && batch_size != self.batch_size) {
    self.change = fmt::format("sample-exact, not bit-exact: batches of {} → {} samples", batch_size, self.batch_size);
  }
  if (self.counts_batches) {
    self.size = size;
  } else if (size != self.size) {
    const bool again = is_inside_an_epoch(state, self.options.drop_last);
    self.change +=
        fmt::format("{}the dataset has {} samples and had {}{}", self.change.empty() ? "" : "; ", self.size, size,
                    again ? fmt::format(": epoch {} begins again (--holdfast.allow-dataset-change)", epoch + 1) : "");
    cursor = again || cursor == 0 ? 0 : self.samples_per_epoch();
  }
  self.seed = state["seed"];
  self.go_to(epoch, cursor);
  self.seen = state["samples_seen"];
}

void LoaderBase::set_batches(std::uint64_t count) {
  auto& self = *impl_;
  const bool inside = self.cursor != 0 && self.cursor != self.size;
  self.change.clear();
  if (inside && count != self.size) {
    if (!dataset_change_is_allowed()) {
      throw Error(
          StatusCode::misfit,
          fmt::format(
              "the program has {} batches, and the checkpoint was made after {} of {} in epoch {}: give the same "
              "ones until that epoch is over, or begin it again with --holdfast.allow-dataset-change",
              count, self.cursor, self.size, self.epoch + 1));
    }
    self.change =
        fmt::format("the program has {} batches and had {}: epoch {} begins again", count, self.size, self.epoch + 1);
    self.cursor = 0;
  } else if (self.cursor != 0 && self.cursor == self.size) {
    self.cursor = count;
  }
  self.size = count;
}

}  // namespace holdfast
