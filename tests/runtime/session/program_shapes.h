// Training programs of common shapes: nested loops, functions whose locals are gone at the end, loops that are left.
// Each writes what it computed to a trace, and ends by SIGKILL at the n-th word that it writes.
#pragma once

#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "holdfast/holdfast.h"

namespace shapes {

/// What a program computed at one place in it. Written in one piece because it is shorter than PIPE_BUF.
struct Word {
  char place[40] = {};
  double value = 0;
};

class Trace {
 public:
  Trace(int pipe, int dies_at) : pipe_(pipe), dies_at_(dies_at) {}
  void tell(const std::string& place, double value) {
    if (++told_ == dies_at_) ::kill(::getpid(), SIGKILL);
    Word word;
    std::strncpy(word.place, place.c_str(), sizeof word.place - 1);
    word.value = value;
    if (::write(pipe_, &word, sizeof word) != sizeof word) std::abort();
  }
  /// Differs from one start to the next, for programs that are edited in between.
  bool is_edited() const { return dies_at_ % 2 == 1; }

 private:
  int pipe_;
  int dies_at_;  // 0: nowhere
  int told_ = 0;
};

using holdfast::Session;

class Samples : public torch::data::datasets::Dataset<Samples> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({2}, 0.1 * static_cast<double>(index)), torch::tensor(static_cast<double>(index % 3))};
  }
  std::optional<std::size_t> size() const override { return 10; }
};
inline auto samples(std::int64_t batch_size) {
  return holdfast::Loader(Samples().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
}

inline std::string at(const char* name, std::uint64_t a, std::uint64_t b = 0) {
  return name + std::to_string(a) + "." + std::to_string(b);
}

/// One step of SGD with dropout on `net`; returns the loss.
inline double train_on(torch::nn::Linear& net, torch::optim::Optimizer& optimizer, const torch::Tensor& data) {
  optimizer.zero_grad();
  const auto loss = (net->forward(torch::dropout(data, 0.5, true)) - 1).square().mean();
  loss.backward();
  optimizer.step();
  return loss.item<double>();
}

/// Collect and train, as in reinforcement learning: the outer body makes the data that the inner loop then reads.
inline int collect_and_train(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  std::mt19937 generator(3);
  torch::Tensor batch = torch::zeros({4, 2});
  double x = 0;
  session.track("net", net).track("optimizer", optimizer).track("generator", generator).track("batch", batch);
  session.track("x", x);
  for (auto& round : session.steps({.count = 3})) {
    batch.fill_(static_cast<double>(generator() % 100) * 0.01).add_(torch::rand({4, 2}));
    x += 1;
    for (auto& step : session.steps({.count = 4})) {
      x = x * 1.5 + static_cast<double>(step.number());
      trace.tell(at("inner", round.number(), step.number()), train_on(net, optimizer, batch) + x);
    }
    for (auto& step : session.steps({.count = 2})) {
      x -= 0.25;
      trace.tell(at("second", round.number(), step.number()), x + net->weight.sum().item<double>());
    }
    x *= 0.5;
    trace.tell(at("tail", round.number()), x);
  }
  return session.finish();
}

/// Epochs over loaders inside a counted loop: one loader for all rounds, and one that is made in each round.
inline int loaders_in_rounds(Session& session, Trace& trace) {
  double sum = 0;
  session.track("sum", sum);
  auto outer = samples(5);
  for (auto& round : session.steps({.count = 3})) {
    for (auto& batch : session.steps(outer, {.epochs = 1})) {
      sum = sum * 1.25 + batch.data[0].sum().item<double>();
      trace.tell(at("one", round.number(), batch.number()), sum);
    }
    auto fresh = samples(4);
    for (auto& batch : session.steps(fresh, {.epochs = 1})) {
      sum = sum * 0.75 + batch.data[0].sum().item<double>();
      trace.tell(at("fresh", round.number(), batch.number()), sum);
    }
  }
  return session.finish();
}

/// Epochs whose body resets a tracked value before its batches and evaluates after them, with its own loops.
inline int epochs_with_bodies(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::Adam optimizer(net->parameters(), 0.01);
  double of_epoch = 0, total = 0;
  session.track("net", net).track("optimizer", optimizer).track("of_epoch", of_epoch).track("total", total);
  auto loader = samples(4);
  for (auto& epoch : session.epochs(loader, 2)) {
    of_epoch = 0;
    for (auto& step : session.steps({.count = 2})) {
      total += 1;
      trace.tell(at("warm", epoch.number(), step.number()), total);
    }
    for (auto& batch : epoch) {
      of_epoch += train_on(net, optimizer, batch.data.to(torch::kFloat));
      for (auto& again : session.steps({.count = 2})) {
        total += 0.5 * of_epoch;  // code before a loop in the body is repeated, then undone: only loops trace
        trace.tell(at("again", epoch.number() * 10 + batch.number(), again.number()), total + of_epoch);
      }
    }
    total += of_epoch;
    for (auto& step : session.steps({.count = 2})) {
      total *= 1.5;
      trace.tell(at("evaluate", epoch.number(), step.number()), total);
    }
  }
  return session.finish();
}

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

/// Two loops in a row with code between them; the program leaves the first one.
inline int left_and_followed(Session& session, Trace& trace) {
  double x = 1;
  session.track("x", x);
  for (auto& step : session.steps({.count = 100})) {
    x += static_cast<double>(step.number());
    trace.tell(at("first", step.number()), x);
    if (x > 10) break;
  }
  x *= 2;
  for (auto& step : session.steps({.count = 3})) {
    x += 0.5;
    trace.tell(at("second", step.number()), x);
  }
  x *= 3;
  session.save_now();
  x += 1;
  for (auto& step : session.steps({.count = 2})) {
    x += 0.125;
    trace.tell(at("third", step.number()), x);
  }
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

/// The tensor in a group becomes `value`, and its moments become the results of `select`.
template <class Select>
void replace_parameter(torch::optim::Adam& optimizer, std::size_t group, torch::Tensor& variable,
                       const torch::Tensor& value, const Select& select) {
  auto& held = optimizer.param_groups().at(group).params().at(0);
  const auto found = optimizer.state().find(held.unsafeGetTensorImpl());
  auto state = std::move(found->second);
  optimizer.state().erase(found);
  auto& moments = static_cast<torch::optim::AdamParamState&>(*state);
  moments.exp_avg(select(moments.exp_avg()));
  moments.exp_avg_sq(select(moments.exp_avg_sq()));
  held = variable = value.detach().clone().requires_grad_(true);
  optimizer.state()[variable.unsafeGetTensorImpl()] = std::move(state);
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

/// Epochs over batches that the program holds in a vector, with code before and after them.
inline int epochs_over_a_vector(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  double of_epoch = 0, total = 0;
  session.track("net", net).track("optimizer", optimizer).track("of_epoch", of_epoch).track("total", total);
  std::vector<torch::Tensor> batches;
  for (int i = 0; i < 4; ++i) batches.push_back(torch::full({4, 2}, 0.1 * i));
  for (auto& epoch : session.epochs({.count = 3}, batches)) {
    of_epoch = 0;
    for (auto& batch : epoch) {
      of_epoch += train_on(net, optimizer, batch);
      trace.tell(at("batch", epoch.number(), static_cast<std::uint64_t>(batch[0][0].item<float>() * 10 + 0.5)),
                 of_epoch + total);
    }
    total += of_epoch;
    for (auto& step : session.steps({.count = 2})) {
      total *= 1.25;
      trace.tell(at("after", epoch.number(), step.number()), total);
    }
  }
  return session.finish();
}

/// Loops with the program's own loop head: one at top level with a loop in its body, and one in each epoch's body.
inline int while_next(Session& session, Trace& trace) {
  torch::nn::Linear net(2, 1);
  torch::optim::SGD optimizer(net->parameters(), 0.05);
  double x = 0;
  session.track("net", net).track("optimizer", optimizer).track("x", x);
  while (const auto step = session.next()) {
    x += 1;
    const double loss = train_on(net, optimizer, torch::rand({4, 2}));
    trace.tell(at("step", step->number()), loss + x);
    if (x >= 5) session.done("far enough");
  }
  auto loader = samples(4);
  for (auto& epoch : session.epochs(loader, 2)) {
    for (auto& batch : epoch) {
      x = x * 0.5 + batch.data.sum().item<double>();
      trace.tell(at("batch", epoch.number(), batch.number()), x);
    }
    while (const auto step = session.next()) {
      for (auto& inner : session.steps({.count = 2})) {
        x = x * 1.5 + static_cast<double>(inner.number());
        trace.tell(at("inner", epoch.number() * 10 + step->number(), inner.number()), x);
      }
      if (step->number() == 2) session.done();
    }
  }
  return session.finish();
}

/// A loader that visits its samples in an order chosen by the program.
inline int own_order(Session& session, Trace& trace) {
  const auto order = [](std::uint64_t epoch) {
    std::vector<std::size_t> indices{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    std::shuffle(indices.begin(), indices.end(), std::mt19937(static_cast<unsigned>(epoch) + 1));
    return indices;
  };
  double sum = 0;
  session.track("sum", sum);
  holdfast::Loader loader(Samples().map(torch::data::transforms::Stack<>()), {.batch_size = 4, .order = order});
  for (auto& batch : session.steps(loader, {.epochs = 3})) {
    sum = sum * 1.25 + batch.data[0].sum().item<double>();
    trace.tell(at("step", batch.number()), sum);
  }
  return session.finish();
}

struct Shape {
  const char* name;
  int (*train)(Session&, Trace&);
  bool keeps_layout = true;  // of its values, in every start
};

inline const std::vector<Shape>& all() {
  static const std::vector<Shape> shapes = {
      {"collect_and_train", collect_and_train},
      {"loaders_in_rounds", loaders_in_rounds},
      {"epochs_with_bodies", epochs_with_bodies},
      {"left_and_followed", left_and_followed},
      {"function_that_returned", function_that_returned},
      {"replaced_objects", replaced_objects},
      {"flags_that_change", flags_that_change},
      {"two_phases", two_phases},
      {"growing_parameters", growing_parameters},
      {"groups_that_join_and_move", groups_that_join_and_move, false},
      {"agent_with_replay", agent_with_replay},
      {"epochs_over_a_vector", epochs_over_a_vector},
      {"while_next", while_next},
      {"own_order", own_order},
  };
  return shapes;
}

}  // namespace shapes
