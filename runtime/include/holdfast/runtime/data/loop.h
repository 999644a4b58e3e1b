// The loops a user writes over a session: steps of a loader, epochs of steps, counted steps.
//
// A boundary follows each step's body and, in a loop over epochs, each epoch's body. Saves and early ends of loops
// happen only at boundaries. A step is the dataset's own batch on the session's device, and also has its number.
//
// A loop begins when the program starts to iterate over its range. It ends when it is complete or when the program
// leaves it by break, return or an exception. A step that the program leaves counts as done. Loops may be nested unless
// both use the same loader; a step is then an iteration of an innermost loop.
#pragma once

#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>

#include "holdfast/runtime/data/loader.h"

namespace holdfast {

/// The number of iterations of a loop: any whole number from 0 on. Throws Error(invalid) for a negative number.
class LoopCount {
 public:
  template <std::integral T>
  constexpr LoopCount(T count) : count_(static_cast<std::uint64_t>(count)) {  // NOLINT: implicit, as a number is
    if constexpr (std::signed_integral<T>) {
      if (count < 0) refuse(static_cast<std::int64_t>(count));
    }
  }
  template <StandsForWholeNumber<LoopCount> T>
  LoopCount(const T& count) : LoopCount(static_cast<std::int64_t>(count)) {}  // NOLINT: as above
  constexpr operator std::uint64_t() const { return count_; }                 // NOLINT: as above

 private:
  [[noreturn]] static void refuse(std::int64_t count);
  std::uint64_t count_;
};

/// The count of a loop whose end the program decides by session.done() or by leaving it.
inline constexpr std::uint64_t kEndless = std::uint64_t{1} << 60;

struct StepsOptions {
  LoopCount epochs = 1;  // of the loader, over all sessions of the run
};

struct CountOptions {
  LoopCount count = kEndless;  // steps (or epochs of the program's own batches), over all sessions of the run
};

/// The properties of a step apart from its batch.
struct StepFacts {
  std::uint64_t number = 0;  // within the loop, from 1
  std::uint64_t epoch = 0;
  double weight = 1;
  std::uint64_t samples = 0;       // of all ranks; 0: the program makes its own batches
  std::uint64_t batch_size = 0;    // of a full batch
  std::uint64_t samples_left = 0;  // in the epoch, after this step
  std::uint64_t steps_left = 0;    // in the epoch, or of the count, after this one
  std::uint64_t loop = 0;          // number of the loop; the same in each session of the run
};

/// The facts of the batch that a loader handed out last.
StepFacts step_facts(const LoaderBase& loader, std::uint64_t number);

class StepInfo {
 public:
  StepInfo() = default;
  explicit StepInfo(const StepFacts& facts) : facts_(facts) {}
  std::uint64_t number() const { return facts_.number; }  // in its loop, from 1, over all sessions of the run
  std::uint64_t epoch() const { return facts_.epoch; }    // from 0
  /// The weight of this rank's mean loss in the mean over all samples of the step; 1 in one process.
  double weight() const { return facts_.weight; }
  const StepFacts& facts() const { return facts_; }

 private:
  StepFacts facts_;
};

/// A batch of class type is a base of the step: `step.data`, `step.size()`. Any other batch is its member `value`.
template <class Batch, bool = std::is_class_v<Batch> && !std::is_final_v<Batch>>
class Step : public Batch, public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : Batch(std::move(batch)), StepInfo(info) {}
};
template <class Batch>
requires is_vector_of_samples<Batch>
class Step<Batch, true> : public Batch, public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : Batch(std::move(batch)), StepInfo(info) {}
  static constexpr NotStacked<Batch> data{}, target{};
};
template <class Batch>
class Step<Batch, false> : public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : StepInfo(info), value(std::move(batch)) {}
  Batch value;
};

/// One loop of the program as its session sees it. The ranges below call it; users do not. Throws Error.
class Loop {
 public:
  virtual ~Loop() = default;
  /// Begins a step and returns its facts.
  virtual bool more() const = 0;
  /// After the body of a step: counts it, saves if a save is due, records whether to stop.
  virtual StepInfo begin_step() = 0;
  /// After the body of a step: counts it, saves what is due, notes whether to stop.
  virtual void end_step() = 0;
  virtual void begin_epoch() = 0;
  /// The steps of the epoch begin. If the epoch resumes, the session that saved has already run the body before them.
  virtual void begin_epoch_steps() = 0;
  /// The program left the steps of an epoch before their end.
  virtual void leave_epoch_steps() = 0;
  virtual void end_epoch() = 0;
  /// No step follows.
  virtual void complete() = 0;
  /// The program left the loop; the current step counts. `thrown`: it left by an exception, so nothing is written.
  virtual void leave(bool thrown) = 0;
  virtual bool stopping() const = 0;
  virtual c10::Device device() const = 0;
};

/// Begins a loop: restores the run if it is not restored yet, and moves to the loop's own position.
using BeginLoop = std::function<std::shared_ptr<Loop>()>;

/// A running loop, held by the iterator of its range. Destruction before complete() means that the program left it.
class RunningLoop {
 public:
  /// `epoch_steps`: the object represents the steps of one epoch of the loop, not the whole loop.
  explicit RunningLoop(std::shared_ptr<Loop> loop, bool epoch_steps = false)
      : loop_(std::move(loop)), epoch_steps_(epoch_steps) {}
  RunningLoop(RunningLoop&&) noexcept = default;
  RunningLoop& operator=(RunningLoop&&) noexcept = default;
  ~RunningLoop() noexcept(false) {
    if (!loop_) return;
    const bool thrown = std::uncaught_exceptions() > exceptions_;
    if (!epoch_steps_) {
      loop_->leave(thrown);
    } else if (!thrown) {
      loop_->leave_epoch_steps();
    }
  }
  Loop& operator*() const { return *loop_; }
  Loop* operator->() const { return loop_.get(); }
  const std::shared_ptr<Loop>& shared() const { return loop_; }
  /// The loop ran to its end.
  void complete() {
    const auto loop = std::exchange(loop_, nullptr);
    if (!epoch_steps_) loop->complete();
  }

 private:
  std::shared_ptr<Loop> loop_;
  bool epoch_steps_;
  int exceptions_ = std::uncaught_exceptions();
};

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

/// A range of the steps that are left in one epoch.
template <class Dataset>
class Epoch : public StepRange<Dataset> {
 public:
  Epoch(std::shared_ptr<Loop> loop, Loader<Dataset>& loader, std::uint64_t number)
      : StepRange<Dataset>(std::move(loop), loader), number_(number) {}
  std::uint64_t number() const { return number_; }  // from 0

 private:
  std::uint64_t number_;
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

}  // namespace holdfast
