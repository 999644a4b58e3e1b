// Step: what the body of a loop over a loader receives, a batch with the StepInfo.
#pragma once

#include <type_traits>
#include <utility>

#include "holdfast/runtime/data/data_mistakes.h"
#include "holdfast/runtime/data/step_info.h"

namespace holdfast {

/// A batch of class type is a base of the step: `step.data`, `step.size()`. Any other batch is its member `value`.
template <class Batch, bool = std::is_class_v<Batch> && !std::is_final_v<Batch>>
class Step : public Batch, public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : Batch(std::move(batch)), StepInfo(info) {}
};
template <class Batch>
requires detail::is_vector_of_samples<Batch>
class Step<Batch, true> : public Batch, public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : Batch(std::move(batch)), StepInfo(info) {}
  static constexpr detail::NotStacked<Batch> data{}, target{};
};
template <class Batch>
class Step<Batch, false> : public StepInfo {
 public:
  Step(Batch batch, StepInfo info) : StepInfo(info), value(std::move(batch)) {}
  Batch value;
};

}  // namespace holdfast
