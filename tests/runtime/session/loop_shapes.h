// Programs of common shapes of loops: nested, in a row, with code between them, left by the program.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "program_trace.h"

namespace shapes {

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

}  // namespace shapes
