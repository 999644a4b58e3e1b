// How a loader reads its batches: in the loop's own thread or ahead of it, and on to a GPU.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <tuple>

#include "data/loader_impl.h"
#include "data/sample_order.h"

namespace holdfast::detail {
namespace {

at::Tensor default_generator_state() {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace

BatchFetch LoaderBase::Impl::batch_at(std::uint64_t position) const {
  auto [begin, end] = part(position, batch_end(position));
  if (begin == end) begin = position, end = position + 1;  // with weight 0, so that all ranks do the same
  BatchFetch batch{fetch, SampleOrder(size, seed, epoch, options.shuffle), own_order(epoch).indices, seed, epoch, begin,
                   end};
  if (gpu) batch.pin = transfer.pin, batch.device = gpu;
  return batch;
}

std::shared_ptr<void> LoaderBase::Impl::fetch_batch() {
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

std::shared_ptr<void> LoaderBase::Impl::next() {
  const auto end = batch_end(cursor);
  if (end == cursor) {
    go_to(epoch + 1, 0);
    return nullptr;
  }
  // Nothing else draws while the loop waits here for its first batch: if the generator changed, `get` drew from it.
  const auto before = watched ? at::Tensor() : default_generator_state();
  auto batch = fetch_batch();
  if (!watched && !same_bytes(before, default_generator_state())) {
    std::fputs(
        "holdfast: the dataset draws from LibTorch's default generator while it reads a sample; with loader workers "
        "every run is then different: draw from holdfast::sample_generator(index) instead\n",
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

void LoaderBase::Impl::or_go_back(const Position& before, const std::function<void()>& move) {
  try {
    move();
  } catch (...) {
    forget_ahead();
    std::tie(cursor, seen) = before;
    throw;
  }
}

std::shared_ptr<void> LoaderBase::next_batch() {
  if (impl_->uploaded) impl_->forget_ahead();  // its device may not be the one wanted now
  return impl_->next();
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

}  // namespace holdfast::detail
