// Stage: one part of what happens in a training step, such as averaging gradients over the ranks or clipping them. A
// pipeline calls the hooks of its stages in the order of its list, and saves the state of each.
//
//   class SkipNoise : public holdfast::Stage {            // a user's own
//     std::string name() const override { return "skip_noise"; }
//     void before_update(holdfast::Update& update) override { ... }
//   };
//
// Order of the hooks in one step (PIPELINE.md says why): begin, forward_scope, [the user's function], before_backward,
// [backward], after_backward; where a window of micro-batches ends also before_update, [optimizer.step()],
// after_update. Threads: the one that trains.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/step_info.h"
#include "holdfast/runtime/options/option_types.h"
#include "holdfast/runtime/ranks/group.h"
#include "holdfast/runtime/serialize/state.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
}

namespace holdfast {

struct NamedParameter {
  std::string name;  // in the module
  at::Tensor tensor;
};

/// What a stage works on. Lives as long as the pipeline.
struct StageContext {
  std::string pipeline;  // its name
  Group& group;
  c10::Device device;
  torch::nn::Module& net;
  torch::optim::Optimizer& optimizer;
  std::vector<NamedParameter> parameters;   // trainable ones of net, in its order, tied ones once
  std::optional<Precision> precision = {};  // what the user asked for at the start; empty: nothing
  std::function<void(const std::string&)> say = {};
};

/// One forward and backward pass. Windows of them end in one update.
struct MicroBatch {
  StepFacts step;
  bool first = true;  // of its window
  bool last = true;
  Group::Site site;    // of the program's call
  double share = 1;    // factor of the loss, so that the gradients of all ranks' windows average to the mean
  double earlier = 1;  // factor of the window's gradients so far; not 1 if some of its batches were left out
};

/// One optimizer step, at the end of a window.
struct Update {
  std::uint64_t number = 0;           // updates before this one, not counting skipped ones
  std::vector<at::Tensor> gradients;  // those that are defined, complete and averaged
  /// One float32 element on the gradients' device: not 0 if they overflowed, so that the optimizer must not step.
  /// Undefined if they cannot overflow.
  at::Tensor found_inf = {};
};

/// Holds the state of one pipeline; each pipeline needs stages of its own.
class Stage {
 public:
  /// The positions in the list; a stage with `anywhere` may have any.
  enum class Place { exchange, precision, window, gradients, schedule, average, anywhere };

  virtual ~Stage() = default;
  /// Names its state, and itself in messages. Stages of one pipeline have different names.
  virtual std::string name() const = 0;
  virtual Place place() const { return Place::anywhere; }

  /// Called once, when the pipeline is made. Throws Error(invalid) with the reason if the stage cannot work.
  virtual void attach(StageContext&) {}
  virtual void begin(MicroBatch&) {}
  /// The returned object lives while the user's function computes the loss.
  virtual std::shared_ptr<void> forward_scope(const MicroBatch&) { return nullptr; }
  /// May replace the loss by the tensor on which backward() then runs.
  virtual void before_backward(const MicroBatch&, at::Tensor&) {}
  virtual void after_backward(const MicroBatch&) {}
  /// The factor that before_backward() gives losses, until before_update() divides it out of the gradients. If it
  /// changes inside a window, the window's partial gradients are converted. May wait for the device.
  virtual double loss_scale() const { return 1; }
  /// A backward pass threw: the window's gradients are lost, and the next micro-batch begins a new window.
  virtual void drop_window() {}
  virtual void before_update(Update&) {}
  /// `stepped`: one float32 element, 1 if the optimizer stepped and 0 if not. It may lie on the device, so reading it
  /// may wait. Undefined: the optimizer stepped.
  virtual void after_update(const Update&, const at::Tensor& stepped) { (void)stepped; }

  /// Called between steps. The state is everything except what attach() was given.
  virtual void save(State&) const {}
  virtual void load(const State&) {}

 private:
  friend class Pipeline;
  bool attached_ = false;
};

/// Holds any stage, so that pipelines take lists such as `{Ddp(), Accumulate(4)}`.
class AnyStage {
 public:
  template <std::derived_from<Stage> S>
  AnyStage(S stage) : stage_(std::make_shared<S>(std::move(stage))) {}  // NOLINT: implicit, for lists of stages
  template <std::derived_from<Stage> S>
  AnyStage(std::shared_ptr<S> stage) : stage_(std::move(stage)) {}  // NOLINT: shared with the program
  const std::shared_ptr<Stage>& get() const { return stage_; }

 private:
  std::shared_ptr<Stage> stage_;
};

}  // namespace holdfast
