// FusedOptimizer::Batch: what one launch of a fused kernel works on.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <vector>

#include "holdfast/runtime/optim/fused_optimizers.h"

namespace holdfast {

/// The arguments of one kernel: parameters of one group, one device and one dtype, and what belongs to them.
struct FusedOptimizer::Batch {
  const torch::optim::OptimizerOptions* options = nullptr;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<torch::optim::OptimizerParamState*> states;  // null if the options need no state
  at::Tensor scale;  // scale and found_inf: on the parameters' device, or undefined
  at::Tensor found_inf;
};

/// Whether the kernels may take `x` with this parameter: they iterate over memory.
bool lies_like(const at::Tensor& x, const at::Tensor& parameter);
/// A copy of `x` with the parameter's dtype and memory layout.
at::Tensor laid_like(const at::Tensor& x, const at::Tensor& parameter);

}  // namespace holdfast
