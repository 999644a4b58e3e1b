#include "holdfast/runtime/optim/fused_optimizers.h"

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros_like.h>
#include <torch/optim/serialize.h>
#include <torch/serialize/archive.h>

#include <optional>
#include <utility>

#include "optim/fused_batch.h"
#include "optim/step_counts.h"

namespace holdfast {
namespace {

namespace optim = torch::optim;

/// Makes a state tensor suitable for the kernels: zeros if undefined; with the parameter's memory layout if it was
/// loaded with another.
const at::Tensor& fit(at::Tensor& x, const at::Tensor& parameter) {
  if (!x.defined()) {
    x = at::zeros_like(parameter, at::MemoryFormat::Preserve);
  } else if (!lies_like(x, parameter)) {
    x = laid_like(x, parameter);
  }
  return x;
}

std::optional<at::Tensor> if_defined(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

template <class State, class Options>
optim::OptimizerParamState* adam_state(std::unique_ptr<optim::OptimizerParamState>& held, const at::Tensor& parameter,
                                       const Options& options) {
  auto& state = counted_state<State>(held);
  fit(state.exp_avg(), parameter);
  fit(state.exp_avg_sq(), parameter);
  if (options.amsgrad()) fit(state.max_exp_avg_sq(), parameter);
  return &state;
}

/// `kernel` is at::_fused_adamw_ or at::_fused_adam_, which take the same arguments.
template <class State, class Options, class Batch, class Kernel>
void run_adam(const Batch& batch, const Kernel& kernel) {
  const auto& options = static_cast<const Options&>(*batch.options);
  std::vector<at::Tensor> exp_avg, exp_avg_sq, max_exp_avg_sq, counts;
  for (auto* held : batch.states) {
    auto& state = static_cast<CountedState<State>&>(*held);
    exp_avg.push_back(state.exp_avg());
    exp_avg_sq.push_back(state.exp_avg_sq());
    if (options.amsgrad()) max_exp_avg_sq.push_back(state.max_exp_avg_sq());
    counts.push_back(state.count);
  }
  const auto [beta1, beta2] = options.betas();
  kernel(batch.parameters, batch.gradients, exp_avg, exp_avg_sq, max_exp_avg_sq, counts, options.lr(), beta1, beta2,
         options.weight_decay(), options.eps(), options.amsgrad(), /*maximize=*/false, if_defined(batch.scale),
         if_defined(batch.found_inf));
}

void run_sgd(const optim::SGDOptions& options, double dampening, at::TensorList parameters, at::TensorList gradients,
             at::TensorList momentum_buffers, const at::Tensor& scale, const at::Tensor& found_inf) {
  // is_first_step is never needed: from zeros and without dampening, the first buffer is also the gradient.
  at::_fused_sgd_(parameters, gradients, momentum_buffers, options.weight_decay(), options.momentum(), options.lr(),
                  dampening, options.nesterov(), /*maximize=*/false, /*is_first_step=*/false, if_defined(scale),
                  if_defined(found_inf));
}

/// The defaults, after LibTorch's own check of them.
template <class Reference, class Options>
std::unique_ptr<optim::OptimizerOptions> checked(const Options& defaults) {
  return Reference(std::vector<at::Tensor>(), defaults).defaults().clone();
}

/// Saving only updates the host's view of the state.
template <class Optimizer>
const Optimizer& settled(const Optimizer& optimizer) {
  const_cast<Optimizer&>(optimizer).settle();
  return optimizer;
}

}  // namespace

FusedAdamW::FusedAdamW(const std::vector<optim::OptimizerParamGroup>& groups, optim::AdamWOptions defaults)
    : FusedOptimizer(groups, checked<optim::AdamW>(defaults)) {}
FusedAdamW::FusedAdamW(std::vector<at::Tensor> parameters, optim::AdamWOptions defaults)
    : FusedAdamW({optim::OptimizerParamGroup(std::move(parameters))}, std::move(defaults)) {}

const char* FusedAdamW::name() const { return "FusedAdamW"; }

optim::OptimizerParamState* FusedAdamW::state_of(const at::Tensor& parameter, const optim::OptimizerOptions& options) {
  return adam_state<optim::AdamWParamState>(state_[parameter.unsafeGetTensorImpl()], parameter,
                                            static_cast<const optim::AdamWOptions&>(options));
}

void FusedAdamW::run(const Batch& batch) const {
  run_adam<optim::AdamWParamState, optim::AdamWOptions>(
      batch, [](const auto&... arguments) { at::_fused_adamw_(arguments...); });
}

void FusedAdamW::save(torch::serialize::OutputArchive& archive) const {
  optim::serialize<optim::AdamWParamState, optim::AdamWOptions>(archive, settled(*this));
}

void FusedAdamW::load(torch::serialize::InputArchive& archive) {
  optim::serialize<optim::AdamWParamState, optim::AdamWOptions>(archive, *this);
}

FusedAdam::FusedAdam(const std::vector<optim::OptimizerParamGroup>& groups, optim::AdamOptions defaults)
    : FusedOptimizer(groups, checked<optim::Adam>(defaults)) {}
FusedAdam::FusedAdam(std::vector<at::Tensor> parameters, optim::AdamOptions defaults)
    : FusedAdam({optim::OptimizerParamGroup(std::move(parameters))}, std::move(defaults)) {}

const char* FusedAdam::name() const { return "FusedAdam"; }

optim::OptimizerParamState* FusedAdam::state_of(const at::Tensor& parameter, const optim::OptimizerOptions& options) {
  return adam_state<optim::AdamParamState>(state_[parameter.unsafeGetTensorImpl()], parameter,
                                           static_cast<const optim::AdamOptions&>(options));
}

void FusedAdam::run(const Batch& batch) const {
  run_adam<optim::AdamParamState, optim::AdamOptions>(batch,
                                                      [](const auto&... arguments) { at::_fused_adam_(arguments...); });
}

void FusedAdam::save(torch::serialize::OutputArchive& archive) const {
  optim::serialize<optim::AdamParamState, optim::AdamOptions>(archive, settled(*this));
}

void FusedAdam::load(torch::serialize::InputArchive& archive) {
  optim::serialize<optim::AdamParamState, optim::AdamOptions>(archive, *this);
}

FusedSgd::FusedSgd(const std::vector<optim::OptimizerParamGroup>& groups, optim::SGDOptions defaults)
    : FusedOptimizer(groups, checked<optim::SGD>(defaults)) {}
FusedSgd::FusedSgd(std::vector<at::Tensor> parameters, optim::SGDOptions defaults)
    : FusedSgd({optim::OptimizerParamGroup(std::move(parameters))}, std::move(defaults)) {}

const char* FusedSgd::name() const { return "FusedSgd"; }

optim::OptimizerParamState* FusedSgd::state_of(const at::Tensor& parameter, const optim::OptimizerOptions& options) {
  if (static_cast<const optim::SGDOptions&>(options).momentum() == 0) return nullptr;
  auto& state = counted_state<optim::SGDParamState>(state_[parameter.unsafeGetTensorImpl()]);
  fit(state.momentum_buffer(), parameter);
  return &state;
}

void FusedSgd::run(const Batch& batch) const {
  const auto& options = static_cast<const optim::SGDOptions&>(*batch.options);
  if (options.momentum() == 0) {
    run_sgd(options, 0, batch.parameters, batch.gradients, {}, batch.scale, batch.found_inf);
    return;
  }

  std::vector<at::Tensor> parameters, gradients, buffers;
  for (std::size_t i = 0; i < batch.parameters.size(); ++i) {
    auto& state = static_cast<CountedState<optim::SGDParamState>&>(*batch.states[i]);
    if (options.dampening() == 0 || state.host_steps() > 0) {
      parameters.push_back(batch.parameters[i]);
      gradients.push_back(batch.gradients[i]);
      buffers.push_back(state.momentum_buffer());
      continue;
    }
    // A first step is not dampened, and only the device knows whether all steps so far were skipped. So both kinds of
    // step are launched, and one of them skips.
    const at::Tensor is_later = state.count.gt(1).to(at::kFloat);  // this step is already counted
    const at::Tensor is_first = 1 - is_later;
    const auto unless = [&](const at::Tensor& x) {
      return batch.found_inf.defined() ? at::maximum(x, batch.found_inf) : x;
    };
    run_sgd(options, 0, batch.parameters[i], batch.gradients[i], state.momentum_buffer(), batch.scale,
            unless(is_later));
    run_sgd(options, options.dampening(), batch.parameters[i], batch.gradients[i], state.momentum_buffer(), batch.scale,
            unless(is_first));
  }
  if (parameters.empty()) return;
  run_sgd(options, options.dampening(), parameters, gradients, buffers, batch.scale, batch.found_inf);
}

void FusedSgd::save(torch::serialize::OutputArchive& archive) const {
  optim::serialize<optim::SGDParamState, optim::SGDOptions>(archive, settled(*this));
}

void FusedSgd::load(torch::serialize::InputArchive& archive) {
  optim::serialize<optim::SGDParamState, optim::SGDOptions>(archive, *this);
}

}  // namespace holdfast
