#include "holdfast/runtime/optim/fused_optimizers.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/optim/serialize.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "holdfast/runtime/error.h"
#include "tensors/tensor_form.h"

namespace holdfast {
namespace {

namespace optim = torch::optim;

/// The number of steps of a parameter, as a float32 on its device: the kernels read it there, and a skipped step is
/// subtracted there. The counts of parameters that began together share one tensor, so that counting takes one launch.
struct Counted {
  virtual ~Counted() = default;
  virtual std::int64_t& host_steps() = 0;  // correct unless steps that could be skipped came since the last settle()

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
    if constexpr (std::is_same_v<State, optim::SGDParamState>) steps_ = 1;
  }
  std::int64_t& host_steps() override {
    if constexpr (std::is_same_v<State, optim::SGDParamState>) {
      return steps_;
    } else {
      return this->step();
    }
  }

 private:
  std::int64_t steps_ = 0;
};

template <class State>
CountedState<State>& counted_state(std::unique_ptr<optim::OptimizerParamState>& state) {
  if (auto* counted = dynamic_cast<CountedState<State>*>(state.get())) return *counted;
  state = state ? std::make_unique<CountedState<State>>(static_cast<const State&>(*state))
                : std::make_unique<CountedState<State>>();
  return static_cast<CountedState<State>&>(*state);
}

bool lies_like(const at::Tensor& x, const at::Tensor& parameter) {
  return x.strides() == parameter.strides() && x.scalar_type() == parameter.scalar_type();
}

at::Tensor laid_like(const at::Tensor& x, const at::Tensor& parameter) {
  return at::empty_like(parameter, at::MemoryFormat::Preserve).copy_(x);
}

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

at::Tensor on_device(const at::Tensor& x, at::Device device) {
  return x.defined() ? x.to(device, /*non_blocking=*/true).reshape({}) : x;
}

/// The counts of a round, grouped by the tensor that they share.
class Counts {
 public:
  /// States without a count get one from the host's steps.
  explicit Counts(const std::vector<std::pair<at::Device, Counted*>>& all) {
    std::unordered_map<at::Device, std::vector<Counted*>> fresh;
    for (const auto& [device, state] : all) {
      if (!state->counts.defined()) fresh[device].push_back(state);
    }
    for (auto& [device, states] : fresh) {
      const auto counts = at::zeros({static_cast<std::int64_t>(states.size())}, at::device(device).dtype(at::kFloat));
      const auto views = counts.unbind();
      for (std::size_t i = 0; i < states.size(); ++i) {
        states[i]->counts = counts;
        states[i]->index = static_cast<std::int64_t>(i);
        states[i]->count = views[i];
        // Filled, not copied: a copy from the host's ordinary memory waits for the device.
        if (const auto steps = states[i]->host_steps()) states[i]->count.fill_(steps);
      }
    }
    for (const auto& [device, state] : all) {
      const auto same = [&state = state](const auto& part) { return part.shared.is_same(state->counts); };
      auto part = std::find_if(parts_.begin(), parts_.end(), same);
      if (part == parts_.end()) part = parts_.insert(part, {state->counts, {}});
      part->counts.push_back(state->count);
    }
  }

  void add_one() {
    for (auto& [shared, counts] : parts_) {
      if (is_all(shared, counts)) {
        shared.add_(1);
      } else {
        at::_foreach_add_(counts, 1);
      }
    }
  }

  void subtract(const at::Tensor& found_inf) {
    for (auto& [shared, counts] : parts_) {
      const at::Tensor taken_back = on_device(found_inf, shared.device());
      if (is_all(shared, counts)) {
        shared.sub_(taken_back);
      } else {
        at::_foreach_sub_(counts, std::vector<at::Tensor>(counts.size(), taken_back));
      }
    }
  }

 private:
  struct Part {
    at::Tensor shared;
    std::vector<at::Tensor> counts;
  };
  static bool is_all(const at::Tensor& shared, const std::vector<at::Tensor>& counts) {
    return shared.numel() == static_cast<std::int64_t>(counts.size());
  }

  std::vector<Part> parts_;
};

}  // namespace

/// The arguments of one kernel: parameters of one group, one device and one dtype, and what belongs to them.
struct FusedOptimizer::Batch {
  const optim::OptimizerOptions* options = nullptr;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<optim::OptimizerParamState*> states;  // null if the options need no state
  at::Tensor scale;                                 // scale and found_inf: on the parameters' device, or undefined
  at::Tensor found_inf;
};

at::Tensor FusedOptimizer::step(LossClosure closure) {
  at::Tensor loss;
  if (closure) {
    const at::AutoGradMode enable(true);
    loss = closure();
  }
  step_scaled({}, {});
  return loss;
}

void FusedOptimizer::step_scaled(const at::Tensor& scale, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  refuse_what_no_kernel_takes();
  for (std::vector<Batch>& round : gather(scale, found_inf)) {
    std::vector<std::pair<at::Device, Counted*>> counted;
    for (const Batch& batch : round) {
      for (std::size_t i = 0; i < batch.states.size(); ++i) {
        if (auto* state = dynamic_cast<Counted*>(batch.states[i])) {
          counted.emplace_back(batch.parameters[i].device(), state);
        }
      }
    }
    Counts counts(counted);
    counts.add_one();
    for (Batch& batch : round) run_on_plain_memory(batch);
    if (found_inf.defined()) {
      counts.subtract(found_inf);
      settled_ = settled_ && counted.empty();
    } else {
      for (const auto& [device, state] : counted) ++state->host_steps();
    }
  }
}

void FusedOptimizer::settle() {
  if (settled_) return;
  std::vector<std::pair<at::Tensor, at::Tensor>> on_host;  // counts, and their copy: one wait each, usually one
  for (auto it = state_.begin(); it != state_.end();) {
    auto* state = dynamic_cast<Counted*>(it->second.get());
    if (!state || !state->counts.defined()) {
      ++it;
      continue;
    }
    auto found = std::find_if(on_host.begin(), on_host.end(),
                              [&](const auto& known) { return known.first.is_same(state->counts); });
    if (found == on_host.end()) found = on_host.insert(found, {state->counts, state->counts.cpu()});
    state->host_steps() = static_cast<std::int64_t>(found->second.const_data_ptr<float>()[state->index]);
    // If every step was skipped, LibTorch's optimizers would have no state yet.
    it = state->host_steps() == 0 ? state_.erase(it) : std::next(it);
  }
  settled_ = true;
}

// A parameter that is in its group twice, as tied ones are, is stepped twice, as LibTorch's optimizers do. One launch
// must not contain it twice, so its second step is in a separate round; its gradient is already unscaled then.
std::vector<std::vector<FusedOptimizer::Batch>> FusedOptimizer::gather(const at::Tensor& scale,
                                                                       const at::Tensor& found_inf) {
  std::vector<std::vector<Batch>> rounds;
  std::unordered_map<void*, std::size_t> seen;
  for (auto& group : param_groups_) {
    for (const at::Tensor& parameter : group.params()) {
      if (!parameter.grad().defined()) continue;
      const std::size_t round = seen[parameter.unsafeGetTensorImpl()]++;
      if (round == rounds.size()) rounds.emplace_back();
      std::vector<Batch>& batches = rounds[round];

      auto batch = std::find_if(batches.begin(), batches.end(), [&](const Batch& other) {
        return other.options == &group.options() && other.parameters.front().device() == parameter.device() &&
               other.parameters.front().scalar_type() == parameter.scalar_type();
      });
      if (batch == batches.end()) {
        batch = batches.emplace(batch);
        batch->options = &group.options();
        if (round == 0) batch->scale = on_device(scale, parameter.device());
        batch->found_inf = on_device(found_inf, parameter.device());
      }
      batch->parameters.push_back(parameter);
      batch->gradients.push_back(parameter.grad());
      batch->states.push_back(state_of(parameter, group.options()));
    }
  }
  return rounds;
}

/// The kernels iterate over memory, so a gradient with another memory layout than its parameter is passed as a copy.
void FusedOptimizer::run_on_plain_memory(Batch& batch) const {
  std::vector<std::pair<at::Tensor, std::size_t>> others;
  for (std::size_t i = 0; i < batch.gradients.size(); ++i) {
    if (lies_like(batch.gradients[i], batch.parameters[i])) continue;
    others.emplace_back(batch.gradients[i], i);
    batch.gradients[i] = laid_like(batch.gradients[i], batch.parameters[i]);
  }
  run(batch);
  if (!batch.scale.defined()) return;
  for (const auto& [gradient, i] : others) gradient.copy_(batch.gradients[i]);  // now unscaled
}

void FusedOptimizer::refuse_what_no_kernel_takes() const {
  for (std::size_t group = 0; group < param_groups_.size(); ++group) {
    const auto& parameters = param_groups_[group].params();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& parameter = parameters[i];
      const at::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) continue;
      const auto refuse = [&](const std::string& why) {
        throw Error(storage::StatusCode::unsupported, std::string(name()) + ", group " + std::to_string(group) +
                                                          ": parameter " + std::to_string(i) + " (" +
                                                          describe(parameter) + ") " + why);
      };
      if (gradient.layout() != at::kStrided) {
        refuse(
            "has a sparse gradient, which fused kernels do not take: make it dense, as with "
            "torch::nn::EmbeddingOptions::sparse(false), or use a torch::optim class that takes it");
      }
      if (!parameter.is_non_overlapping_and_dense()) {
        refuse(
            "does not fill its memory without gaps, as fused kernels need: make it a tensor of its own, as clone() "
            "does, or use a torch::optim class");
      }
      if (parameter.is_complex()) {
        refuse("is complex, which LibTorch's fused kernels do not take: use a torch::optim class");
      }
      const bool is_half = parameter.scalar_type() == at::kHalf || parameter.scalar_type() == at::kBFloat16;
      if (is_half && parameter.is_cpu() && dynamic_cast<const FusedSgd*>(this)) {
        // at::_fused_sgd_ of LibTorch 2.11: its vector loop for these types computes the step and does not store it.
        refuse("is of a type that LibTorch's fused SGD computes wrongly on the CPU: use float32, or torch::optim::SGD");
      }
    }
  }
}

namespace {

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
