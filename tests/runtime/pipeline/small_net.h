// A small network with fixed weights, a dataset for it, and a stage that records gradients: what most tests of
// pipelines train.
#pragma once

#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "holdfast/holdfast.h"

namespace small_net {

using namespace holdfast;

inline constexpr std::int64_t kInputs = 24, kHidden = 48, kClasses = 8;

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) {
    return last->forward(torch::tanh(middle->forward(torch::gelu(first->forward(x)))));
  }
  torch::nn::Linear first{register_module("first", torch::nn::Linear(kInputs, kHidden))};
  torch::nn::Linear middle{register_module("middle", torch::nn::Linear(kHidden, kHidden))};
  torch::nn::Linear last{register_module("last", torch::nn::Linear(kHidden, kClasses))};
};
TORCH_MODULE(Net);

// Equal on every rank and in every call.
inline Net make_net() {
  Net net;
  const torch::NoGradGuard no_grad;
  double phase = 0;
  for (auto& parameter : net->parameters()) {
    parameter.copy_(torch::sin(torch::arange(parameter.numel(), torch::kDouble) * 0.37 + ++phase).view_as(parameter) *
                    0.25);
  }
  return net;
}

class Points : public torch::data::datasets::Dataset<Points> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    return {torch::sin(torch::arange(kInputs, torch::kDouble) * (0.1 + 0.05 * static_cast<double>(index)))
                .to(torch::kFloat),
            torch::tensor(static_cast<std::int64_t>(index * 5 % kClasses))};
  }
  std::optional<std::size_t> size() const override {
    return 45;
  }  // two windows of 16 and one of 13: batches of 4, 4, 4, 1
};

inline auto points() { return Points().map(torch::data::transforms::Stack<>()); }

inline torch::Tensor flat(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> parts;
  for (const auto& tensor : tensors) parts.push_back(tensor.detach().cpu().to(torch::kDouble).reshape({-1}));
  return torch::cat(parts);
}

// Keeps the gradients that the optimizer will see.
class Recorder : public Stage {
 public:
  std::string name() const override { return "recorder"; }
  void before_update(Update& update) override { gradients.push_back(flat(update.gradients)); }
  std::vector<torch::Tensor> gradients;
};

inline StageContext context_of(Group& group, Net& net, torch::optim::Optimizer& optimizer) {
  StageContext context{"test", group, group.device(), *net, optimizer, {}, {}, [](const std::string&) {}};
  for (const auto& parameter : net->named_parameters())
    context.parameters.push_back({parameter.key(), parameter.value()});
  return context;
}

inline double distance(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).norm().item<double>(); }

}  // namespace small_net
