// A training program with any of LibTorch's optimizers, for tests of what a restored optimizer computes.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "state/run_state.h"

namespace optimizer_program {

namespace optim = torch::optim;
using holdfast::RunState;

struct NetImpl : torch::nn::Module {
  NetImpl() {
    first = register_module("first", torch::nn::Linear(4, 8));
    norm = register_module("norm", torch::nn::BatchNorm1d(8));
    dropout = register_module("dropout", torch::nn::Dropout(0.3));
    last = register_module("last", torch::nn::Linear(8, 4));
    // Not used at first: optimizers have no state for it until it gets a gradient.
    idle = register_parameter("idle", torch::randn({3}));
    tied = register_parameter("tied", first->weight);
  }
  torch::Tensor forward(torch::Tensor x) {
    x = dropout(torch::relu(norm(first(x))));
    return last(x).matmul(tied.t());
  }
  torch::nn::Linear first{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout dropout{nullptr};
  torch::Tensor idle, tied;
};
TORCH_MODULE(Net);

using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(std::vector<torch::Tensor>)>;

/// A training program. It makes its own batches from LibTorch's generator.
struct Program {
  explicit Program(const MakeOptimizer& make, std::uint64_t seed = 0, bool reversed = false) {
    torch::manual_seed(seed);
    net = Net();
    auto parameters = net->parameters();
    if (reversed) std::reverse(parameters.begin(), parameters.end());
    optimizer = make(parameters);
    state.track("net", net).track("optimizer", *optimizer);
  }

  std::vector<float> steps(int count) {
    std::vector<float> losses;
    for (int i = 0; i < count; ++i) {
      const auto x = torch::randn({16, 4});
      const auto y = torch::randn({16, 8});
      const auto loss = optimizer->step([&] {
        optimizer->zero_grad();
        auto loss = torch::mse_loss(net->forward(x), y);
        loss.backward();
        return loss;
      });
      losses.push_back(loss.item<float>());
    }
    return losses;
  }

  Net net{nullptr};
  std::unique_ptr<optim::Optimizer> optimizer;
  RunState state;
};

template <class Optimizer, class Options>
MakeOptimizer make(Options options) {
  return [options](std::vector<torch::Tensor> parameters) {
    return std::make_unique<Optimizer>(std::move(parameters), options);
  };
}

inline const std::vector<std::pair<std::string, MakeOptimizer>>& optimizers() {
  static const std::vector<std::pair<std::string, MakeOptimizer>> all = {
      {"Adam", make<optim::Adam>(optim::AdamOptions(0.02).weight_decay(0.1))},
      {"Adam amsgrad", make<optim::Adam>(optim::AdamOptions(0.02).amsgrad(true))},
      {"AdamW", make<optim::AdamW>(optim::AdamWOptions(0.02))},
      {"AdamW amsgrad", make<optim::AdamW>(optim::AdamWOptions(0.02).amsgrad(true))},
      {"SGD", make<optim::SGD>(optim::SGDOptions(0.02))},
      {"SGD momentum", make<optim::SGD>(optim::SGDOptions(0.02).momentum(0.9).nesterov(true))},
      {"RMSprop", make<optim::RMSprop>(optim::RMSpropOptions(0.02))},
      {"RMSprop centered", make<optim::RMSprop>(optim::RMSpropOptions(0.02).momentum(0.5).centered(true))},
      {"Adagrad", make<optim::Adagrad>(optim::AdagradOptions(0.02).lr_decay(0.1))},
      {"LBFGS", make<optim::LBFGS>(optim::LBFGSOptions(0.1).max_iter(4).history_size(3))},
      {"LBFGS line search", make<optim::LBFGS>(optim::LBFGSOptions(0.5).max_iter(4).line_search_fn("strong_wolfe"))},
  };
  return all;
}

}  // namespace optimizer_program
