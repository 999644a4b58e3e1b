// The step counts of fused optimizers: on the parameters' devices, where the kernels read them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/optim/sgd.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace holdfast {

/// The number of steps of a parameter, as a float32 on its device: the kernels read it there, and a skipped step is
/// subtracted there. The counts of parameters that began together share one tensor, so that counting takes one launch.
struct Counted {
  virtual ~Counted() = default;
  virtual std::int64_t& host_steps() = 0;  // correct unless steps that could be skipped were made since settle()

  at::Tensor counts;  // shared; undefined until the next step
  std::int64_t index = 0;
  at::Tensor count;  // counts[index], 0-dim
};

/// LibTorch's state for a parameter, with the count. A plain LibTorch state was put there from outside: its host step
/// is authoritative, and a new count begins from it.
template <class State>
struct CountedState : State, Counted {
  CountedState() = default;
  explicit CountedState(const State& plain) : State(plain) {
    // SGD has state from the first step on.
    if constexpr (std::is_same_v<State, torch::optim::SGDParamState>) steps_ = 1;
  }
  std::int64_t& host_steps() override {
    if constexpr (std::is_same_v<State, torch::optim::SGDParamState>) {
      return steps_;
    } else {
      return this->step();
    }
  }

 private:
  std::int64_t steps_ = 0;
};

template <class State>
CountedState<State>& counted_state(std::unique_ptr<torch::optim::OptimizerParamState>& state) {
  if (auto* counted = dynamic_cast<CountedState<State>*>(state.get())) return *counted;
  state = state ? std::make_unique<CountedState<State>>(static_cast<const State&>(*state))
                : std::make_unique<CountedState<State>>();
  return static_cast<CountedState<State>&>(*state);
}

/// The counts of a round, grouped by the tensor that they share.
class StepCounts {
 public:
  /// States without a count get one from the host's steps.
  explicit StepCounts(const std::vector<std::pair<at::Device, Counted*>>& all);
  void add_one();
  /// Takes the step back on devices where `found_inf` is 1.
  void subtract(const at::Tensor& found_inf);

 private:
  struct Part {
    at::Tensor shared;
    std::vector<at::Tensor> counts;
  };
  std::vector<Part> parts_;
};

/// The value on that device, 0-dim; undefined if it is undefined.
at::Tensor on_device(const at::Tensor& x, at::Device device);

}  // namespace holdfast
