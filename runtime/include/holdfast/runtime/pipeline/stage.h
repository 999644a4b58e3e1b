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
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/data/loop.h"
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
  std::vector<NamedParameter> parameters;  // trainable ones of net, in its order, tied ones once
  std::string precision = "";              // what the user asked for when starting the program; empty: nothing
  std::function<void(const std::string&)> say = {};
};

/// One forward and backward pass. Windows of them end in one update.
struct MicroBatch {
  StepFacts step;
  bool first = true;  // of its window
  bool last = true;
  Group::Site site;    // of the program's call
  double share = 1;    // what the loss is multiplied by, so that gradients of all ranks' windows average to the mean
  double earlier = 1;  // what the window's gradients so far are multiplied by: not all batches came that were to come
};

/// One optimizer step, at the end of a window.
struct Update {
  std::uint64_t number = 0;           // updates made before this one, skipped ones left out
  std::vector<at::Tensor> gradients;  // those that are defined, complete and averaged
  /// Where gradients may have overflowed: one float32 element on their device, not 0 if they did and the optimizer must
  /// not step. Undefined: they cannot have.
  at::Tensor found_inf = {};
};

/// Has the state of one pipeline; another takes another one.
class Stage {
 public:
  /// Where in the list a stage may stand; `anywhere` is for those that need no order.
  enum class Place { exchange, precision, window, gradients, schedule, average, anywhere };

  virtual ~Stage() = default;
  /// Names its state, and itself in messages. Stages of one pipeline have different names.
  virtual std::string name() const = 0;
  virtual Place place() const { return Place::anywhere; }

  /// Once, when the pipeline is made. Throws Error(invalid) with the reason where it cannot work.
  virtual void attach(StageContext&) {}
  virtual void begin(MicroBatch&) {}
  /// Holds while the user's function computes the loss.
  virtual std::shared_ptr<void> forward_scope(const MicroBatch&) { return nullptr; }
  /// May replace the loss by what backward() is to run on.
  virtual void before_backward(const MicroBatch&, at::Tensor&) {}
  virtual void after_backward(const MicroBatch&) {}
  /// What before_backward() multiplies losses by, until before_update() divides it out of the gradients: a window that
  /// goes on at another scale has its partial gradients converted. May wait for the device.
  virtual double loss_scale() const { return 1; }
  /// A backward pass threw: the window's gradients are gone, and the next micro-batch begins another one.
  virtual void drop_window() {}
  virtual void before_update(Update&) {}
  /// `stepped`: 1 where the optimizer stepped and 0 where it did not, a float32 element that may lie on the device, so
  /// reading it may wait; undefined: it did.
  virtual void after_update(const Update&, const at::Tensor& stepped) { (void)stepped; }

  /// Between steps. Everything but what attach() was given.
  virtual void save(State&) const {}
  virtual void load(const State&) {}

 private:
  friend class Pipeline;
  bool attached_ = false;
};

/// Any stage, as pipelines take them: `{Ddp(), Accumulate(4)}`.
class AnyStage {
 public:
  template <std::derived_from<Stage> S>
  AnyStage(S stage) : stage_(std::make_shared<S>(std::move(stage))) {}  // NOLINT: lists of stages rest on it
  template <std::derived_from<Stage> S>
  AnyStage(std::shared_ptr<S> stage) : stage_(std::move(stage)) {}  // NOLINT: shared with the program
  const std::shared_ptr<Stage>& get() const { return stage_; }

 private:
  std::shared_ptr<Stage> stage_;
};

}  // namespace holdfast
