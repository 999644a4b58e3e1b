// The loops a user writes over a session: steps of a loader, epochs of steps, counted steps.
//
// A boundary lies after each step's body, and after each epoch's body where epochs are looped over. Only there is
// anything saved, and only there does a loop end early. A step is the dataset's own batch, on the session's device, and
// also knows its number.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "holdfast/runtime/loader.h"

namespace holdfast {

struct StepsOptions {
  std::uint64_t epochs = 1;  // of the loader, over all sessions of the run
};

struct CountOptions {
  std::uint64_t count = 0;  // steps, over all sessions of the run
};

/// What a step knows besides its batch.
struct StepFacts {
  std::uint64_t number = 0;
  std::uint64_t epoch = 0;
  double weight = 1;
  std::uint64_t samples = 0;       // of all ranks; 0: the program makes its own batches
  std::uint64_t batch_size = 0;    // a whole batch's
  std::uint64_t samples_left = 0;  // in the epoch, after this step
  std::uint64_t steps_left = 0;    // in the epoch, or of the count, after this one
  std::uint64_t loop = 0;          // the program's, from 0 in the order in which they begin
};

/// Of the batch that a loader handed out last.
StepFacts step_facts(const LoaderBase& loader, std::uint64_t number);

class StepInfo {
 public:
  StepInfo() = default;
  explicit StepInfo(const StepFacts& facts) : facts_(facts) {}
  std::uint64_t number() const { return facts_.number; }  // from 1, over the whole run and all its loops
  std::uint64_t epoch() const { return facts_.epoch; }    // from 0
  /// Of this rank's mean loss in the mean over all samples of the step; 1 in one process.
  double weight() const { return facts_.weight; }
  const StepFacts& facts() const { return facts_; }

 private:
  StepFacts facts_;
};

/// A batch that is a class is the step's base: `step.data`, `step.size()`. Any other is its `value`.
template <class Batch, bool = std::is_class_v<Batch> && !std::is_final_v<Batch>>
class Step : public Batch, public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : Batch(std::move(batch)), StepInfo(info) {}
};
template <class Batch>
class Step<Batch, false> : public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : StepInfo(info), value(std::move(batch)) {}
  Batch value;
};

/// One loop of the program as its session sees it. The ranges below call it; users do not.
/// Owned by the session. Throws Error.
class Loop {
 public:
  virtual ~Loop() = default;
  /// Before the first step: restores the run if that has not happened, and goes to this loop's own position.
  virtual void start() = 0;
  /// Whether another step (or epoch) is to begin.
  virtual bool more() const = 0;
  /// A step begins; the number it has.
  virtual StepInfo begin_step() = 0;
  /// After the body of a step: counts it, saves what is due, notes whether to stop.
  virtual void end_step() = 0;
  virtual void begin_epoch() = 0;
  virtual void end_epoch() = 0;
  virtual bool stopping() const = 0;
  virtual c10::Device device() const = 0;
};

template <class Dataset>
class StepRange {
 public:
  using Batch = typename Loader<Dataset>::Batch;
  StepRange(Loop& loop, Loader<Dataset>& loader, bool one_epoch)
      : loop_(loop), loader_(loader), one_epoch_(one_epoch) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = Step<Batch>;
    explicit Iterator(StepRange& range) : range_(&range) { fetch(); }
    Step<Batch>& operator*() { return *step_; }
    Step<Batch>* operator->() { return &*step_; }
    Iterator& operator++() {
      step_.reset();
      range_->loop_.end_step();
      fetch();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return step_.has_value(); }
    bool operator==(std::default_sentinel_t) const { return !step_.has_value(); }

   private:
    void fetch() {
      Loop& loop = range_->loop_;
      while (range_->one_epoch_ ? !loop.stopping() : loop.more()) {
        if (auto batch = range_->loader_.next_on(loop.device())) {
          step_.emplace(std::move(*batch), loop.begin_step());
          return;
        }
        if (range_->one_epoch_) return;
      }
    }
    StepRange* range_;
    std::optional<Step<Batch>> step_;
  };

  Iterator begin() {
    if (!one_epoch_) loop_.start();
    return Iterator(*this);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  Loop& loop_;
  Loader<Dataset>& loader_;
  bool one_epoch_;
};

/// What is left of one epoch: a range of its steps.
template <class Dataset>
class Epoch : public StepRange<Dataset> {
 public:
  Epoch(Loop& loop, Loader<Dataset>& loader, std::uint64_t number)
      : StepRange<Dataset>(loop, loader, true), number_(number) {}
  std::uint64_t number() const { return number_; }  // from 0

 private:
  std::uint64_t number_;
};

template <class Dataset>
class EpochRange {
 public:
  EpochRange(Loop& loop, Loader<Dataset>& loader) : loop_(loop), loader_(loader) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = Epoch<Dataset>;
    explicit Iterator(EpochRange& range) : range_(&range) { begin_epoch(); }
    Epoch<Dataset>& operator*() { return *epoch_; }
    Epoch<Dataset>* operator->() { return &*epoch_; }
    Iterator& operator++() {
      range_->loop_.end_epoch();
      begin_epoch();
      return *this;
    }
    bool operator!=(std::default_sentinel_t) const { return epoch_.has_value(); }
    bool operator==(std::default_sentinel_t) const { return !epoch_.has_value(); }

   private:
    void begin_epoch() {
      epoch_.reset();
      if (!range_->loop_.more()) return;
      range_->loop_.begin_epoch();
      epoch_.emplace(range_->loop_, range_->loader_, range_->loader_.epoch());
    }
    EpochRange* range_;
    std::optional<Epoch<Dataset>> epoch_;
  };

  Iterator begin() {
    loop_.start();
    return Iterator(*this);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  Loop& loop_;
  Loader<Dataset>& loader_;
};

class CountRange {
 public:
  explicit CountRange(Loop& loop) : loop_(loop) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = StepInfo;
    explicit Iterator(Loop& loop) : loop_(&loop) { begin_step(); }
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
      if (loop_->more()) step_ = loop_->begin_step();
    }
    Loop* loop_;
    std::optional<StepInfo> step_;
  };

  Iterator begin() {
    loop_.start();
    return Iterator(loop_);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  Loop& loop_;
};

}  // namespace holdfast
