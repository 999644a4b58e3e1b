// LibTorch's optimizers and the fused ones with the same options, and a training program for either.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/optim/fused_optimizers.h"
#include "state/run_state.h"

namespace optimizer_twins {

namespace optim = torch::optim;
using holdfast::RunState;
using holdfast::TakesDeviceScale;

using Groups = std::vector<optim::OptimizerParamGroup>;
using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(const Groups&)>;

/// One of LibTorch's optimizers and ours, with the same options; the second group gets its own options.
struct Twins {
  std::string name;
  MakeOptimizer plain;
  MakeOptimizer fused;
};

template <class Plain, class Fused, class Options>
Twins twins(std::string name, Options options) {
  const auto make = [options](auto* type, Groups groups) {
    using Optimizer = std::remove_pointer_t<decltype(type)>;
    auto second = std::make_unique<Options>(options);
    second->lr(options.lr() / 3).weight_decay(0.03);
    if (groups.size() > 1) groups[1].set_options(std::move(second));
    return std::make_unique<Optimizer>(groups, options);
  };
  return {std::move(name), [make](const Groups& groups) { return make(static_cast<Plain*>(nullptr), groups); },
          [make](const Groups& groups) { return make(static_cast<Fused*>(nullptr), groups); }};
}

inline const std::vector<Twins>& all_twins() {
  const auto adamw = [](const char* name, optim::AdamWOptions options) {
    return twins<optim::AdamW, holdfast::FusedAdamW>(name, options);
  };
  const auto adam = [](const char* name, optim::AdamOptions options) {
    return twins<optim::Adam, holdfast::FusedAdam>(name, options);
  };
  const auto sgd = [](const char* name, optim::SGDOptions options) {
    return twins<optim::SGD, holdfast::FusedSgd>(name, options);
  };
  static const std::vector<Twins> all = {
      adamw("AdamW", optim::AdamWOptions(0.02)),
      adamw("AdamW, all options", optim::AdamWOptions(0.02).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.2)),
      adamw("AdamW, amsgrad", optim::AdamWOptions(0.02).amsgrad(true).weight_decay(0)),
      adam("Adam", optim::AdamOptions(0.02)),
      adam("Adam, all options", optim::AdamOptions(0.02).betas({0.8, 0.95}).eps(1e-6).weight_decay(0.2)),
      adam("Adam, amsgrad", optim::AdamOptions(0.02).amsgrad(true)),
      sgd("SGD", optim::SGDOptions(0.02)),
      sgd("SGD, weight decay", optim::SGDOptions(0.02).weight_decay(0.1)),
      sgd("SGD, momentum", optim::SGDOptions(0.02).momentum(0.9)),
      sgd("SGD, nesterov", optim::SGDOptions(0.02).momentum(0.8).nesterov(true).weight_decay(0.1)),
      sgd("SGD, dampening", optim::SGDOptions(0.02).momentum(0.9).dampening(0.3).weight_decay(0.1)),
  };
  return all;
}

inline const Twins& adamw() { return all_twins().front(); }

/// Parameters of many kinds in two groups, and the gradients of every step.
struct Program {
  Program(const MakeOptimizer& make, at::Device device, at::ScalarType dtype = at::kFloat, std::uint64_t seed = 0,
          bool tied = true) {
    torch::manual_seed(seed);
    const auto add = [&](at::Tensor x) { parameters.push_back(x.to(device).requires_grad_()); };
    add(torch::randn({37, 5}, dtype));
    add(torch::randn({6, 4, 3, 3}, dtype).contiguous(at::MemoryFormat::ChannelsLast));
    add(torch::randn({}, dtype));
    add(torch::randn({2, 3}, at::kDouble));
    add(torch::randn({1000}, dtype));
    add(torch::randn({64, 3}, dtype).t());  // dense, but not contiguous
    add(torch::randn({7}, dtype));
    std::vector<at::Tensor> first(parameters.begin(), parameters.begin() + 4);
    if (tied) first.push_back(parameters[2]);  // the group contains a tied parameter twice
    optimizer = make({first, std::vector<at::Tensor>(parameters.begin() + 4, parameters.end())});
    for (std::size_t i = 0; i < parameters.size(); ++i) state.track("p" + std::to_string(i), parameters[i]);
    state.track("optimizer", *optimizer);
  }

  TakesDeviceScale& scaled() { return dynamic_cast<TakesDeviceScale&>(*optimizer); }

  /// The gradients of step `number`, equal in all programs. One parameter sometimes has no gradient, one has none for a
  /// long time, and one gets a gradient in a memory order other than its own.
  void set_gradients(int number, double scale = 1) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& p = parameters[i];
      p.mutable_grad() = at::Tensor();
      if ((i == 1 && number % 3 == 1) || (i == 6 && number < 4)) continue;
      torch::manual_seed(static_cast<std::uint64_t>(number * 100) + i);
      auto gradient = (torch::randn(p.sizes(), at::kDouble) * scale).to(p.options());
      if (i != 5) gradient = at::empty_like(p).copy_(gradient).detach();
      p.mutable_grad() = gradient;
    }
  }

  void steps(int from, int to) {
    for (int i = from; i < to; ++i) {
      set_gradients(i);
      optimizer->step();
    }
  }

  /// Steps like mixed precision; `skips` are the steps whose gradients overflowed.
  void scaled_steps(int from, int to, const std::vector<int>& skips) {
    for (int i = from; i < to; ++i) {
      set_gradients(i);
      const bool skip = std::find(skips.begin(), skips.end(), i) != skips.end();
      if (skip) {
        for (auto& p : parameters) {
          if (p.grad().defined()) p.mutable_grad().fill_(std::numeric_limits<double>::infinity());
        }
      }
      scaled().step_scaled({}, torch::full({1}, skip ? 1.0 : 0.0, parameters[0].device()));
    }
  }

  std::vector<at::Tensor> parameters;
  std::unique_ptr<optim::Optimizer> optimizer;
  RunState state;
};

/// The largest difference in parameters and state, in units of `dtype`'s rounding: relative to |b|, or relative to 1 if
/// b is small.
inline double distance(const Program& a, const Program& b, at::ScalarType dtype) {
  const double epsilon = dtype == at::kDouble ? std::numeric_limits<double>::epsilon()
                                              : static_cast<double>(std::numeric_limits<float>::epsilon());
  double largest = 0;
  const auto compare = [&](const at::Tensor& x, const at::Tensor& y) {
    const auto magnitude = y.detach().to(at::kDouble).abs().clamp_min(1);
    const auto difference = (x.detach().to(at::kDouble) - y.detach().to(at::kDouble)).abs() / magnitude;
    largest = std::max(largest, difference.max().item<double>() / epsilon);
  };
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    compare(a.parameters[i], b.parameters[i]);
    const auto state_a = a.optimizer->state().find(a.parameters[i].unsafeGetTensorImpl());
    const auto state_b = b.optimizer->state().find(b.parameters[i].unsafeGetTensorImpl());
    REQUIRE((state_a == a.optimizer->state().end()) == (state_b == b.optimizer->state().end()));
    if (state_a == a.optimizer->state().end()) continue;
    const auto compare_adam = [&]<class State>(const State* x) {
      const auto& y = dynamic_cast<const State&>(*state_b->second);
      CHECK(x->step() == y.step());
      compare(x->exp_avg(), y.exp_avg());
      compare(x->exp_avg_sq(), y.exp_avg_sq());
      REQUIRE(x->max_exp_avg_sq().defined() == y.max_exp_avg_sq().defined());
      if (y.max_exp_avg_sq().defined()) compare(x->max_exp_avg_sq(), y.max_exp_avg_sq());
    };
    if (const auto* x = dynamic_cast<optim::AdamWParamState*>(state_a->second.get())) compare_adam(x);
    if (const auto* x = dynamic_cast<optim::AdamParamState*>(state_a->second.get())) compare_adam(x);
    if (const auto* x = dynamic_cast<optim::SGDParamState*>(state_a->second.get())) {
      compare(x->momentum_buffer(), dynamic_cast<optim::SGDParamState&>(*state_b->second).momentum_buffer());
    }
  }
  return largest;
}

}  // namespace optimizer_twins
