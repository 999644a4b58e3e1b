// A program that sums ten samples, for tests of one session.
#pragma once

#include <signal.h>
#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "holdfast/runtime/data/loader.h"
#include "holdfast/runtime/session/session.h"

namespace summing {

struct Numbers : torch::data::datasets::Dataset<Numbers> {
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({1}, static_cast<float>(index)), torch::zeros({1})};
  }
  std::optional<std::size_t> size() const override { return 10; }
};
using Batches = holdfast::Loader<decltype(Numbers().map(torch::data::transforms::Stack<>()))>;

// Five steps.
inline Batches batches() { return Batches(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 2}); }

// Adds every sample to a sum; `body` runs in each step.
inline int sum_samples(holdfast::Session& session, std::uint64_t epochs, double& sum,
                       const std::function<void(std::uint64_t step)>& body = {}) {
  auto loader = batches();
  session.track("sum", sum);
  for (auto& batch : session.steps(loader, {.epochs = epochs})) {
    sum += batch.data.sum().item<double>();
    if (body) body(batch.number());
  }
  return session.finish();
}

// One epoch that records its steps and gets a stop request in one of them (0: never).
struct Noted {
  double sum = 0;
  std::vector<std::uint64_t> steps;
  auto stopping_at(std::uint64_t stop_at) {
    return [this, stop_at](holdfast::Session& session) {
      return sum_samples(session, 1, sum, [&](std::uint64_t step) {
        steps.push_back(step);
        if (step == stop_at) ::raise(SIGTERM);
      });
    };
  }
};

}  // namespace summing
