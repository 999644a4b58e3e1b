// The step of every fused optimizer: which parameters go into which launch, and when a step counts.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <unordered_map>
#include <utility>

#include "holdfast/runtime/error.h"
#include "optim/fused_batch.h"
#include "optim/step_counts.h"
#include "tensors/tensor_form.h"

namespace holdfast {

bool lies_like(const at::Tensor& x, const at::Tensor& parameter) {
  return x.strides() == parameter.strides() && x.scalar_type() == parameter.scalar_type();
}

at::Tensor laid_like(const at::Tensor& x, const at::Tensor& parameter) {
  return at::empty_like(parameter, at::MemoryFormat::Preserve).copy_(x);
}

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
    StepCounts counts(counted);
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

}  // namespace holdfast
