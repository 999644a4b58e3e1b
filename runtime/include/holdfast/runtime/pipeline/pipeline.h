// Pipeline: a training step as a list of stages around a module and its optimizer. The same loop runs on a CPU, on one
// GPU and on many ranks.
//
//   auto pipeline = session.pipeline(net, optimizer, {Ddp(), Amp(), Accumulate(4), ClipGradNorm(1.0)});
//   for (auto& batch : session.steps(loader, {.epochs = 10})) {
//     pipeline.step(batch, [&] { return F::cross_entropy(net->forward(batch.data), batch.target); });
//   }
//
// The function returns the mean loss over this rank's part of the batch. Parts may differ in size: their weights make
// the update equal to that of the whole batch. The pipeline's state between steps (counts, a window's partial
// gradients, the stages' states) is saved and restored with the session. A Pipeline is a handle: copies refer to the
// same pipeline, which lives as long as the session or the last copy.
//
// Threads: the one that trains. Errors: Error, RankFault.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstdint>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "holdfast/runtime/never.h"
#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {
namespace detail {

/// The first compiler error if step() is called without the loop's step.
template <class T>
struct WithoutStep {
  static_assert(never<T>,
                "Pipeline::step() needs the step of the loop first: pipeline.step(step, [&] { return loss; }), with "
                "the step that session.steps() gives");
  using Outcome = void;
};

class Decision;

}  // namespace detail

class Pipeline {
 public:
  using Site = std::source_location;

  /// Session::pipeline() calls it. Throws Error(invalid), with the reason, for an order or combination of stages that
  /// cannot work. The module and the optimizer must outlive the pipeline.
  Pipeline(StageContext context, std::vector<AnyStage> stages);
  /// What update() did. If the optimizer may have skipped its step because gradients overflowed, stepped() waits for
  /// the device.
  class Outcome {
   public:
    bool window_ended() const { return window_ended_; }
    bool stepped() const;

   private:
    friend class Pipeline;
    bool window_ended_ = false;
    std::shared_ptr<const detail::Decision> decision_;  // null: it stepped
  };

  /// forward, backward and update in one.
  template <class LossOf>
  Outcome step(const StepInfo& step, LossOf&& loss_of, Site site = Site::current()) {
    const at::Tensor loss = forward(step, std::forward<LossOf>(loss_of), site);
    backward(loss, site);
    return update(site);
  }

  template <class LossOf>
  requires std::invocable<LossOf&>
  typename detail::WithoutStep<LossOf>::Outcome step(LossOf&&);

  /// The loss that `loss_of` computes, inside the stages' scopes.
  template <class LossOf>
  at::Tensor forward(const StepInfo& step, LossOf&& loss_of, Site site = Site::current()) {
    const auto scopes = begin(step.facts(), site);
    at::Tensor loss = std::forward<LossOf>(loss_of)();
    return loss;
  }
  /// Adds the gradients of a loss from forward(); at a window's end they become the mean over all ranks.
  void backward(const at::Tensor& loss, Site site = Site::current());
  /// After each backward(): at a window's end lets the optimizer step and clears the gradients; else nothing.
  Outcome update(Site site = Site::current());

  /// The loss of the last micro-batch. Waits for the device.
  double loss() const;
  /// The learning rate of the optimizer's first group.
  double lr() const;
  std::uint64_t updates() const;  // optimizer steps made. Waits if the last one is not decided yet.
  std::uint64_t skipped() const;  // steps skipped because gradients overflowed

  /// The stage of a type: `pipeline.stage<Ema>().swap_in()`. Throws Error(invalid) if there is none.
  template <std::derived_from<Stage> S>
  S& stage() {
    if (S* const found = find_stage<S>()) return *found;
    throw_no_stage();
  }
  /// The stage of a type, null if there is none.
  template <std::derived_from<Stage> S>
  S* find_stage() {
    for (const auto& one : stages()) {
      if (auto* const found = dynamic_cast<S*>(one.get())) return found;
    }
    return nullptr;
  }

  /// The state that the session saves. Between steps only.
  void save(State& state) const;
  void load(const State& state);
  /// After the number of ranks changed: redistributes a window's partial gradients.
  void load_shares(const State& own, const std::vector<State>& shares);

 private:
  using Scopes = std::vector<std::shared_ptr<void>>;  // ended in the reverse order
  struct ScopesEnd {
    Scopes scopes;
    ~ScopesEnd() {
      while (!scopes.empty()) scopes.pop_back();
    }
  };
  std::unique_ptr<ScopesEnd> begin(const StepFacts& step, Site site);
  const std::vector<std::shared_ptr<Stage>>& stages() const;
  [[noreturn]] void throw_no_stage() const;

  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast
