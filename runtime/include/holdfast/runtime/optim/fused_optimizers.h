// AdamW, Adam and SGD that update all parameters in a few launches of LibTorch's fused kernels; LibTorch's own classes
// need several launches for each parameter. They compute the same, take the same options and keep the same state: a
// checkpoint names them "AdamW", "Adam" and "SGD", and a run may switch between both kinds of classes.
//
// Unlike LibTorch's classes they take a loss scale and a found_inf on the device (device_scale.h); the kernels then
// unscale the gradients in place.
//
// The kernels count steps in float32, so up to 2^24. Gradients must be dense; parameters must be real and without gaps
// in memory. Otherwise step() throws Error (unsupported) before anything changes. SGD of float16 and bfloat16
// parameters requires a CUDA device: LibTorch's CPU kernel for it is wrong, so step() throws there, too. An outside
// change of the state takes effect if the state object is replaced, which every restore does. Threads: one at a time.
// Parameters are shared with their module, as in every optimizer.
#pragma once

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <memory>
#include <vector>

#include "holdfast/runtime/optim/device_scale.h"

namespace holdfast {

/// The common base of the three optimizers.
class FusedOptimizer : public torch::optim::Optimizer, public TakesDeviceScale {
 public:
  /// The ordinary step: gradients are not scaled, nothing is skipped. Returns what `closure` returned.
  at::Tensor step(LossClosure closure = nullptr) final;
  void step_scaled(const at::Tensor& scale, const at::Tensor& found_inf) final;
  void settle() final;

 protected:
  using Optimizer::Optimizer;
  struct Batch;

 private:
  virtual const char* name() const = 0;
  /// The parameter's state in the form of this class, created if missing; null if these options need no state.
  virtual torch::optim::OptimizerParamState* state_of(const at::Tensor& parameter,
                                                      const torch::optim::OptimizerOptions& options) = 0;
  virtual void run(const Batch& batch) const = 0;
  std::vector<std::vector<Batch>> gather(const at::Tensor& scale, const at::Tensor& found_inf);
  void run_on_plain_memory(Batch& batch) const;
  void refuse_what_no_kernel_takes() const;

  bool settled_ = true;  // no step since settle() could have been skipped: the host's counts are right
};

class FusedAdamW : public FusedOptimizer {
 public:
  explicit FusedAdamW(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                      torch::optim::AdamWOptions defaults = {});
  explicit FusedAdamW(std::vector<at::Tensor> parameters, torch::optim::AdamWOptions defaults = {});
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  const char* name() const override;
  torch::optim::OptimizerParamState* state_of(const at::Tensor&, const torch::optim::OptimizerOptions&) override;
  void run(const Batch& batch) const override;
};

class FusedAdam : public FusedOptimizer {
 public:
  explicit FusedAdam(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                     torch::optim::AdamOptions defaults = {});
  explicit FusedAdam(std::vector<at::Tensor> parameters, torch::optim::AdamOptions defaults = {});
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  const char* name() const override;
  torch::optim::OptimizerParamState* state_of(const at::Tensor&, const torch::optim::OptimizerOptions&) override;
  void run(const Batch& batch) const override;
};

class FusedSgd : public FusedOptimizer {
 public:
  explicit FusedSgd(const std::vector<torch::optim::OptimizerParamGroup>& groups, torch::optim::SGDOptions defaults);
  explicit FusedSgd(std::vector<at::Tensor> parameters, torch::optim::SGDOptions defaults);
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  const char* name() const override;
  torch::optim::OptimizerParamState* state_of(const at::Tensor&, const torch::optim::OptimizerOptions&) override;
  void run(const Batch& batch) const override;
};

}  // namespace holdfast
