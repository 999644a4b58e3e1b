#include "holdfast/runtime/data/loader_base.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "data/loader_impl.h"
#include "data/session_seed.h"
#include "holdfast/runtime/error.h"

namespace holdfast::detail {
namespace {

std::atomic<std::uint64_t> loaders_made{0};

std::uint64_t default_seed() {
  if (const auto seed = session_seed()) return *seed;
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard lock(generator.mutex());
  return generator.current_seed();
}

[[noreturn]] void refuse(const std::string& sentence) { throw Error(storage::StatusCode::invalid, sentence); }

}  // namespace

LoaderBase::Impl::Impl(const LoaderOptions& given, std::optional<std::size_t> dataset_size, Fetch fetcher, Transfer how)
    : number(loaders_made++),
      options(given),
      custom_order(given.order),
      fetch(std::move(fetcher)),
      transfer(std::move(how)),
      seed(given.seed ? *given.seed : default_seed()) {
  if (!dataset_size)
    refuse("the dataset has no size, so its samples cannot be visited once per epoch: return one from size()");
  size = *dataset_size;
  if (size == 0) refuse("the dataset is empty: a loader needs at least one sample");
  if (options.batch_size < 1)
    refuse(fmt::format("batch_size is {}: it must be at least 1", std::int64_t{options.batch_size}));
  if (options.workers < 0) refuse(fmt::format("workers is {}: it must be 0 or more", options.workers));
  if (options.prefetch < 1) refuse(fmt::format("prefetch is {}: it must be at least 1", options.prefetch));
  batch_size = static_cast<std::uint64_t>(options.batch_size);
  if (options.drop_last && size < batch_size) {
    refuse(fmt::format("drop_last leaves no batch: the dataset has {} samples and batch_size is {}", size, batch_size));
  }
}

std::uint64_t LoaderBase::Impl::batch_end(std::uint64_t position) const {
  const auto end = std::min(position + batch_size, size);
  return options.drop_last && end - position < batch_size ? position : end;
}

std::pair<std::uint64_t, std::uint64_t> LoaderBase::Impl::part(std::uint64_t begin, std::uint64_t end) const {
  const std::uint64_t each = (end - begin) / world_size, longer = (end - begin) % world_size;
  const std::uint64_t first = begin + rank * each + std::min(rank, longer);
  return {first, first + each + (rank < longer ? 1 : 0)};
}

void LoaderBase::Impl::go_to(std::uint64_t to_epoch, std::uint64_t to_cursor) {
  forget_ahead();
  epoch = to_epoch;
  cursor = to_cursor;
  last_batch = 0;
}

void LoaderBase::Impl::forget_ahead() {
  if (queue) queue->clear();
  uploaded.reset();
}

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
        fmt::format("batch_size is {} for {} ranks, so some ranks would never have a sample: it counts the samples of "
                    "all ranks together; make it at least {}, best a multiple of that",
                    self.batch_size, ranks, ranks));
  }
  if (self.rank == static_cast<std::uint64_t>(rank) && self.world_size == ranks) return;
  self.rank = static_cast<std::uint64_t>(rank);
  self.world_size = ranks;
  self.forget_ahead();
}

void LoaderBase::seek(std::uint64_t epoch, std::uint64_t cursor) {
  if (cursor > impl_->size) {
    refuse(fmt::format("cannot seek to sample {} of an epoch: the dataset has {} samples", cursor, impl_->size));
  }
  impl_->go_to(epoch, cursor);
  impl_->seen = epoch * impl_->samples_per_epoch() + cursor;
}

}  // namespace holdfast::detail
