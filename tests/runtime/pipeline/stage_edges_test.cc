// Stages in situations that are rare in a pipeline.
#include <torch/torch.h>

#include "catch.h"
#include "holdfast/holdfast.h"

namespace {

using namespace holdfast;

struct Trained {
  Group group{RankEnvironment(), c10::kCPU};
  torch::nn::Linear net{2, 1};
  torch::optim::SGD optimizer{net->parameters(), torch::optim::SGDOptions(0.1)};
  // Without a receiver for messages.
  StageContext context{"test", group, c10::kCPU, *net, optimizer, {{"weight", net->weight}, {"bias", net->bias}}};
};

}  // namespace

TEST_CASE("a_backward_pass_through_a_graph_from_before_swap_in_is_an_error") {
  Trained one;
  Pipeline pipeline(one.context, {Ema(0.5)});
  StepFacts facts;
  facts.steps_left = 10;
  for (int i = 0; i < 3; ++i)
    pipeline.step(StepInfo(facts), [&] { return one.net->forward(torch::ones({1, 2})).sum(); });
  const auto x = torch::ones({1, 2}, torch::requires_grad());
  const auto loss = one.net->forward(x).square().sum();
  const auto averages = pipeline.stage<Ema>().swap_in();
  CHECK_THROWS_AS(loss.backward(), c10::Error);
}

TEST_CASE("stages_of_a_pipeline_without_a_log_function_work") {
  Trained one;
  Pipeline pipeline(one.context, {Accumulate(3)});
  StepFacts facts;
  facts.steps_left = 10;
  const auto step = [&] {
    pipeline.step(StepInfo(facts), [&] { return one.net->forward(torch::ones({1, 2})).sum(); });
  };
  step();
  facts.loop = 1;  // the loop left a window, which is logged
  CHECK_NOTHROW(step());
}
