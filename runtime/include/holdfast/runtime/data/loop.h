// How the ranges that a program iterates over (ranges.h, own_epoch.h) tell the session where the program is. Users call
// neither Loop nor RunningLoop.
#pragma once

#include <c10/core/Device.h>

#include <exception>
#include <functional>
#include <memory>
#include <utility>

#include "holdfast/runtime/data/step_info.h"

namespace holdfast::detail {

/// One loop of the program as its session sees it. Throws Error.
class Loop {
 public:
  virtual ~Loop() = default;
  /// Whether an iteration may follow: the loop is neither complete nor about to stop.
  virtual bool more() const = 0;
  /// Begins a step and returns its facts.
  virtual StepInfo begin_step() = 0;
  /// After the body of a step: counts it, saves if a save is due, records whether to stop.
  virtual void end_step() = 0;
  /// The body of an epoch begins; end_epoch(): it is over.
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
  /// Whether the loop must not begin another step.
  virtual bool stopping() const = 0;
  /// Where batches are moved to.
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

}  // namespace holdfast::detail
