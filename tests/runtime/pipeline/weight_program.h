// One rank's pipeline over a model that is one weight: every step's effect is a number that a test can compute.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/holdfast.h"
#include "state/run_state.h"

namespace weight_program {

using namespace holdfast;

struct WeightImpl : torch::nn::Module {
  explicit WeightImpl(const torch::Tensor& initial = torch::zeros({2})) : w(register_parameter("w", initial)) {}
  torch::Tensor w;
};
TORCH_MODULE(Weight);

// All that the pipelines have logged.
inline std::vector<std::string>& said() {
  static std::vector<std::string> lines;
  return lines;
}

// One rank's pipeline over SGD with the rate 1, so that the weight moves by the mean gradient.
struct Program {
  explicit Program(std::vector<AnyStage> stages, std::uint64_t dataset = 0)
      : pipeline(StageContext{"test",
                              group,
                              c10::kCPU,
                              *net,
                              optimizer,
                              {{"w", net->w}},
                              {},
                              [](const std::string& line) { said().push_back(line); }},
                 std::move(stages)),
        left(dataset) {
    state.track("net", net).track("optimizer", optimizer).track("pipeline", pipeline);
  }

  // A batch with `count` samples of the epoch, or with the rest of it; its loss has the gradient `slope`.
  Pipeline::Outcome step(std::uint64_t count, double slope = 1) {
    return pipeline.step(next(count), [&] { return (net->w * slope).sum(); });
  }
  StepInfo next(std::uint64_t count) {
    StepFacts facts;
    facts.steps_left = 100;
    if (left > 0) {
      facts.samples = std::min(count, left);
      facts.batch_size = count;
      left -= facts.samples;
      facts.samples_left = left;
      facts.steps_left = (left + count - 1) / count;
    }
    return StepInfo(facts);
  }
  double weight() const { return net->w[0].item<double>(); }

  Group group{RankEnvironment{}, c10::kCPU};
  Weight net;
  torch::optim::SGD optimizer{net->parameters(), torch::optim::SGDOptions(1)};
  Pipeline pipeline;
  std::uint64_t left;  // samples of the epoch
  RunState state;
};

}  // namespace weight_program
