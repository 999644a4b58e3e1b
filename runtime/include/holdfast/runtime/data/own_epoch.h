// OwnEpoch: an epoch over batches that the program holds, without a Loader. A run resumes after the batches that it had
// counted, so the program must hold the same batches in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <ranges>
#include <utility>

#include "holdfast/runtime/data/loader_base.h"
#include "holdfast/runtime/data/loop.h"

namespace holdfast::detail {

/// Counts the batches of a range that the program holds, as a loader counts its samples.
class BatchCounter : public LoaderBase {
 public:
  BatchCounter();
  /// The epoch's steps begin; there are `count` batches.
  void begin(std::uint64_t count) { set_batches(count); }
  /// Counts one more batch. False once at the epoch's end; the position is then the start of the next one.
  bool next() { return next_batch() != nullptr; }
};

/// What is left of one epoch over the program's own batches, which are passed on unchanged.
template <class Batches>
class OwnEpoch {
 public:
  OwnEpoch(std::shared_ptr<Loop> loop, std::shared_ptr<BatchCounter> counter, Batches& batches, std::uint64_t number)
      : loop_(std::move(loop)), counter_(std::move(counter)), batches_(&batches), number_(number) {}
  std::uint64_t number() const { return number_; }  // from 0

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = std::ranges::range_value_t<Batches>;
    Iterator(RunningLoop loop, BatchCounter& counter, Batches& batches)
        : loop_(std::move(loop)),
          counter_(&counter),
          at_(std::ranges::next(std::ranges::begin(batches), static_cast<std::ptrdiff_t>(counter.cursor()))) {
      count();
    }
    std::ranges::range_reference_t<Batches> operator*() const { return *at_; }
    Iterator& operator++() {
      loop_->end_step();
      ++at_;
      count();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return !is_over_; }
    bool operator==(std::default_sentinel_t) const { return is_over_; }

   private:
    void count() {
      is_over_ = loop_->stopping() || !counter_->next();
      if (is_over_) {
        loop_.complete();
      } else {
        loop_->begin_step();
      }
    }
    RunningLoop loop_;
    BatchCounter* counter_;
    std::ranges::iterator_t<Batches> at_;
    bool is_over_ = false;
  };

  Iterator begin() {
    counter_->begin(static_cast<std::uint64_t>(std::ranges::distance(*batches_)));
    loop_->begin_epoch_steps();
    return Iterator(RunningLoop(loop_, /*epoch_steps=*/true), *counter_, *batches_);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  std::shared_ptr<Loop> loop_;
  std::shared_ptr<BatchCounter> counter_;
  Batches* batches_;
  std::uint64_t number_;
};

}  // namespace holdfast::detail
