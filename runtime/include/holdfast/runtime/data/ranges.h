// The loops a user writes over a session: steps of a loader, epochs of steps, counted steps.
//
// A boundary follows each step's body and, in a loop over epochs, each epoch's body. Saves and early ends of loops
// happen only at boundaries. A step is the dataset's own batch on the session's device, and also has its number.
//
// A loop begins when the program starts to iterate over its range. It ends when it is complete or when the program
// leaves it by break, return or an exception. A step that the program leaves counts as done. Loops may be nested unless
// both use the same loader; a step is then an iteration of an innermost loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "holdfast/runtime/data/loader.h"
#include "holdfast/runtime/data/loop.h"
#include "holdfast/runtime/data/step.h"

namespace holdfast {
namespace detail {

/// The steps over a loader's batches: of a whole loop, across epochs, or of one epoch.
template <class Dataset>
class StepRange {
 public:
  using Batch = typename Loader<Dataset>::Batch;
  StepRange(BeginLoop begin, Loader<Dataset>& loader) : begin_(std::move(begin)), loader_(loader) {}
  StepRange(std::shared_ptr<Loop> epoch_of, Loader<Dataset>& loader)
      : epoch_of_(std::move(epoch_of)), loader_(loader) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = Step<Batch>;
    Iterator(RunningLoop loop, Loader<Dataset>& loader, bool one_epoch)
        : loop_(std::move(loop)), loader_(&loader), one_epoch_(one_epoch) {
      fetch();
    }
    Step<Batch>& operator*() { return *step_; }
    Step<Batch>* operator->() { return &*step_; }
    Iterator& operator++() {
      step_.reset();
      loop_->end_step();
      fetch();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return step_.has_value(); }
    bool operator==(std::default_sentinel_t) const { return !step_.has_value(); }

   private:
    void fetch() {
      while (one_epoch_ ? !loop_->stopping() : loop_->more()) {
        if (auto batch = loader_->next_on(loop_->device())) {
          step_.emplace(std::move(*batch), loop_->begin_step());
          return;
        }
        if (one_epoch_) break;
      }
      loop_.complete();
    }
    RunningLoop loop_;
    Loader<Dataset>* loader_;
    bool one_epoch_;
    std::optional<Step<Batch>> step_;
  };

  Iterator begin() {
    if (!epoch_of_) return Iterator(RunningLoop(begin_()), loader_, /*one_epoch=*/false);
    epoch_of_->begin_epoch_steps();
    return Iterator(RunningLoop(epoch_of_, /*epoch_steps=*/true), loader_, /*one_epoch=*/true);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  BeginLoop begin_;
  std::shared_ptr<Loop> epoch_of_;  // the steps of one epoch of this loop
  Loader<Dataset>& loader_;
};

/// A loop over epochs, each a range of its own.
template <class OneEpoch>
class EpochRange {
 public:
  using Make = std::function<OneEpoch(std::shared_ptr<Loop>)>;
  EpochRange(BeginLoop begin, Make make) : begin_(std::move(begin)), make_(std::move(make)) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = OneEpoch;
    Iterator(Make make, RunningLoop loop) : make_(std::move(make)), loop_(std::move(loop)) { begin_epoch(); }
    OneEpoch& operator*() { return *epoch_; }
    OneEpoch* operator->() { return &*epoch_; }
    Iterator& operator++() {
      loop_->end_epoch();
      begin_epoch();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return epoch_.has_value(); }
    bool operator==(std::default_sentinel_t) const { return !epoch_.has_value(); }

   private:
    void begin_epoch() {
      epoch_.reset();
      if (!loop_->more()) {
        loop_.complete();
        return;
      }
      loop_->begin_epoch();
      epoch_.emplace(make_(loop_.shared()));
    }
    Make make_;  // before the loop, because it may own the counter that the loop reads when the program leaves it
    RunningLoop loop_;
    std::optional<OneEpoch> epoch_;
  };

  Iterator begin() { return Iterator(make_, RunningLoop(begin_())); }
  std::default_sentinel_t end() const { return {}; }

 private:
  BeginLoop begin_;
  Make make_;
};

/// A counted loop whose steps have no batch.
class CountRange {
 public:
  explicit CountRange(BeginLoop begin) : begin_(std::move(begin)) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = StepInfo;
    explicit Iterator(RunningLoop loop) : loop_(std::move(loop)) { begin_step(); }
    StepInfo& operator*() { return *step_; }
    Iterator& operator++() {
      loop_->end_step();
      begin_step();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return step_.has_value(); }
    bool operator==(std::default_sentinel_t) const { return !step_.has_value(); }

   private:
    void begin_step() {
      step_.reset();
      if (loop_->more()) {
        step_ = loop_->begin_step();
      } else {
        loop_.complete();
      }
    }
    RunningLoop loop_;
    std::optional<StepInfo> step_;
  };

  Iterator begin() { return Iterator(RunningLoop(begin_())); }
  std::default_sentinel_t end() const { return {}; }

 private:
  BeginLoop begin_;
};

}  // namespace detail

/// A range of the steps that are left in one epoch.
template <class Dataset>
class Epoch : public detail::StepRange<Dataset> {
 public:
  Epoch(std::shared_ptr<detail::Loop> loop, Loader<Dataset>& loader, std::uint64_t number)
      : detail::StepRange<Dataset>(std::move(loop), loader), number_(number) {}
  std::uint64_t number() const { return number_; }  // from 0

 private:
  std::uint64_t number_;
};

}  // namespace holdfast
