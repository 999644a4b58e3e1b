// Programs whose tracked objects change: gone when their function returns, replaced, frozen, growing, in an agent.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "program_trace.h"
#include "replace_parameter.h"

namespace shapes {

/// An agent that names its members once: a net and its target, an optimizer, a replay buffer of structs that grows and
/// drops, and counts in a hash map that are visited in its order.
class Agent {
 public:
  double play(std::uint64_t step) {
    Transition transition;
    transition.seen = {static_cast<float>(generator_() % 7), static_cast<float>(step)};
    transition.reward = std::uniform_real_distribution<>()(generator_);
    transition.picture = torch::rand({1 + static_cast<std::int64_t>(step % 3)});
    if (step % 2 == 0) transition.note = "even" + std::to_string(step);
    replay_.push_back(transition);
    if (replay_.size() > 5) replay_.pop_front();
    counts_["state" + std::to_string(generator_() % 20)] += transition.reward;
    if (step % 3 == 0) target_ = std::dynamic_pointer_cast<torch::nn::LinearImpl>(net_->clone());

    double sum = 0;
    for (const auto& [name, count] : counts_) sum = sum * 1.25 + count;
    for (const Transition& one : replay_) {
      const auto data = torch::tensor({one.seen[0], one.seen[1]}).view({1, 2});
      optimizer_.zero_grad();
      const auto loss = (net_->forward(data) - target_->forward(data).detach() - one.reward).square().mean();
      loss.backward();
      optimizer_.step();
      sum += loss.item<double>() + one.picture.sum().item<double>() + (one.note ? 1.0 : 0.5);
    }
    best_ = std::min(best_.value_or(sum), sum);
    return sum + *best_;
  }

 private:
  struct Transition {
    std::array<float, 2> seen{};
    double reward = 0;
    torch::Tensor picture;
    std::optional<std::string> note;
    template <class Archive>
    void holdfast_state(Archive& a) {
      a("seen", seen)("reward", reward)("picture", picture)("note", note);
    }
  };
  friend struct holdfast::StateMembers;
  template <class Archive>
  void holdfast_state(Archive& a) {
    a("net", net_)("target", target_)("optimizer", optimizer_)("replay", replay_)("counts", counts_);
    a("generator", generator_)("best", best_);
  }

  torch::nn::Linear net_{2, 1};
  std::shared_ptr<torch::nn::LinearImpl> target_ = std::make_shared<torch::nn::LinearImpl>(2, 1);
  torch::optim::Adam optimizer_{net_->parameters(), 0.01};
  std::deque<Transition> replay_;
  std::unordered_map<std::string, double> counts_;
  std::mt19937 generator_{7};
  std::optional<double> best_;
};

inline int agent_with_replay(Session& session, Trace& trace) {
  Agent agent;
  session.track("agent", agent);
  for (auto& step : session.steps({.count = 10})) trace.tell(at("step", step.number()), agent.play(step.number()));
  return session.finish();
}

[[gnu::noinline]] inline void train_in_a_function(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  std::vector<double> losses(3, 0.5);
  torch::Tensor mean = torch::zeros({2});
  session.track("net", net).track("optimizer", optimizer).track("losses", losses).track("mean", mean);
  for (auto& step : session.steps({.count = 5})) {
    losses.push_back(train_on(net, optimizer, torch::rand({4, 2})));
    mean = mean * 0.9 + net->weight.detach()[0] * 0.1;
    trace.tell(at("step", step.number()), losses.back() + mean.sum().item<double>());
  }
}

[[gnu::noinline]] inline double overwrite_the_stack() {
  volatile double numbers[4096];
  double sum = 0;
  for (int i = 0; i < 4096; ++i) numbers[i] = 1e300;
  for (int i = 0; i < 4096; ++i) sum += numbers[i];
  return sum;
}

/// A common structure: the locals of the function that trains are gone when main calls finish().
inline int function_that_returned(Session& session, Trace& trace) {
  train_in_a_function(session, trace);
  (void)overwrite_the_stack();
  return session.finish();
}

/// A target network that is sometimes replaced by a clone, and an optimizer that is made again, behind pointers.
inline int replaced_objects(Session& session, Trace& trace) {
  auto net = std::make_shared<torch::nn::LinearImpl>(2, 1);
  auto target = std::make_shared<torch::nn::LinearImpl>(2, 1);
  auto optimizer = std::make_unique<torch::optim::Adam>(net->parameters(), 0.1);
  session.track("net", net).track("target", target).track("optimizer", optimizer);
  for (auto& step : session.steps({.count = 8})) {
    const auto data = torch::rand({4, 2});
    optimizer->zero_grad();
    const auto loss = (net->forward(data) - target->forward(data).detach() - 1).square().mean();
    loss.backward();
    optimizer->step();
    if (step.number() % 3 == 0) target = std::dynamic_pointer_cast<torch::nn::LinearImpl>(net->clone());
    if (step.number() == 4) optimizer = std::make_unique<torch::optim::Adam>(net->parameters(), 0.01);
    trace.tell(at("step", step.number()), loss.item<double>() + target->weight.sum().item<double>());
  }
  return session.finish();
}

/// Layers are frozen and unfrozen, and dropout is switched off, while the program trains.
inline int flags_that_change(Session& session, Trace& trace) {
  torch::nn::Sequential net(torch::nn::Linear(2, 4), torch::nn::Dropout(0.5), torch::nn::Linear(4, 1));
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  for (auto& parameter : net[0]->parameters()) parameter.requires_grad_(false);
  session.track("net", net).track("optimizer", optimizer);
  for (auto& step : session.steps({.count = 7})) {
    if (step.number() == 3) {
      for (auto& parameter : net[0]->parameters()) parameter.requires_grad_(true);
    }
    if (step.number() == 5) net[1]->eval();
    optimizer.zero_grad();
    const auto loss = (net->forward(torch::rand({4, 2})) - 1).square().mean();
    loss.backward();
    optimizer.step();
    trace.tell(at("step", step.number()), loss.item<double>());
  }
  return session.finish();
}

/// Points that are split and pruned while Adam moves them, as in Gaussian splatting.
inline int growing_parameters(Session& session, Trace& trace) {
  torch::Tensor means = torch::rand({3, 2}).requires_grad_(true), scales = torch::ones({3}, torch::requires_grad());
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector{means}, std::make_unique<torch::optim::AdamOptions>(0.1));
  groups.emplace_back(std::vector{scales}, std::make_unique<torch::optim::AdamOptions>(0.02));
  torch::optim::Adam optimizer(std::move(groups));
  session.track("means", means, holdfast::resizable).track("scales", scales, holdfast::resizable);
  session.track("optimizer", optimizer);
  for (auto& step : session.steps({.count = 12})) {
    optimizer.zero_grad();
    const auto loss = ((means - torch::rand({2})).square().sum(1) * scales).sum() + scales.square().sum();
    loss.backward();
    optimizer.step();
    if (step.number() % 3 == 1) {
      const auto more = [](const torch::Tensor& x) { return torch::cat({x, torch::zeros_like(x.slice(0, 0, 2))}); };
      const auto noise = torch::randn({2, 2}) * 0.1;
      replace_parameter(optimizer, 0, means, torch::cat({means, means.slice(0, 0, 2) + noise}), more);
      replace_parameter(optimizer, 1, scales, torch::cat({scales, scales.slice(0, 0, 2) * 0.5}), more);
    } else if (step.number() % 5 == 2) {
      const auto keep = [](const torch::Tensor& x) { return x.slice(0, 1); };
      replace_parameter(optimizer, 0, means, keep(means), keep);
      replace_parameter(optimizer, 1, scales, keep(scales), keep);
    }
    trace.tell(at("step", step.number(), static_cast<std::uint64_t>(means.size(0))),
               loss.item<double>() + means.sum().item<double>());
  }
  return session.finish();
}

/// Three groups of parameters: one is added while the program trains, and every second start builds the other two in
/// reverse order.
inline int groups_that_join_and_move(Session& session, Trace& trace) {
  torch::nn::Linear body(2, 3), head(3, 1), extra(2, 1);
  const auto group = [](torch::nn::Linear& part, double rate) {
    return torch::optim::OptimizerParamGroup(part->parameters(), std::make_unique<torch::optim::AdamOptions>(rate));
  };
  std::vector<torch::optim::OptimizerParamGroup> groups;
  if (trace.is_edited()) groups.push_back(group(head, 0.05));
  groups.push_back(group(body, 0.01));
  if (!trace.is_edited()) groups.push_back(group(head, 0.05));
  torch::optim::Adam optimizer(std::move(groups));
  session.track("body", body).track("head", head).track("extra", extra).track("optimizer", optimizer);
  for (auto& step : session.steps({.count = 9})) {
    optimizer.zero_grad();
    const auto data = torch::rand({4, 2});
    const auto loss = (head->forward(body->forward(data).tanh()) + extra->forward(data) - 1).square().mean();
    loss.backward();
    optimizer.step();
    if (step.number() == 3) optimizer.add_param_group(group(extra, 0.2));
    for (auto& one : optimizer.param_groups()) one.options().set_lr(one.options().get_lr() * 0.9);
    trace.tell(at("step", step.number()), loss.item<double>());
  }
  return session.finish();
}

[[gnu::noinline]] inline double first_phase(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  session.track("pretrained", net).track("optimizer", optimizer);
  for (auto& step : session.steps({.count = 4})) {
    trace.tell(at("first", step.number()), train_on(net, optimizer, torch::rand({4, 2})));
  }
  session.untrack("pretrained");
  session.untrack("optimizer");
  return net->weight.sum().item<double>();
}

[[gnu::noinline]] inline void second_phase(Session& session, Trace& trace, double from) {
  torch::nn::Linear net(2, 1);
  torch::optim::Adam optimizer(net->parameters(), 0.01);
  double x = from;
  session.track("tuned", net).track("x", x).track("adam", optimizer);
  for (auto& step : session.steps({.count = 4})) {
    x = x * 0.5 + train_on(net, optimizer, torch::rand({4, 2}));
    trace.tell(at("second", step.number()), x);
  }
}

/// Two functions that train one after the other, each with its own objects.
inline int two_phases(Session& session, Trace& trace) {
  const double from = first_phase(session, trace);
  second_phase(session, trace, from);
  (void)overwrite_the_stack();
  return session.finish();
}

}  // namespace shapes
