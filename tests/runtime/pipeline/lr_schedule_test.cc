// The LrSchedule stage.
#include <torch/torch.h>

#include <memory>

#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "pipeline/small_net.h"
#include "ranks.h"

using namespace holdfast;
using namespace small_net;

TEST_CASE("ranks_that_observe_different_metrics_are_stopped", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    Net net = make_net();
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
    Pipeline pipeline(context_of(group, net, optimizer), {LrSchedule::plateau()});
    pipeline.stage<LrSchedule>().observe(0.5);
    pipeline.stage<LrSchedule>().observe(0.25 + group.rank());
    return "not stopped";
  });
  for (const auto& rank : ended) {
    CHECK(rank.code == ranks::kStopped);
    CHECK(lacking(rank.text, {"rank 1 calls LrSchedule.observe", "metric 1.25", "lr_schedule_test.cc"}) == "");
  }
}

TEST_CASE("an_added_parameter_group_follows_the_schedule_from_its_own_rate") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->first->parameters(), torch::optim::SGDOptions(1));
  Pipeline pipeline(context_of(group, net, optimizer), {LrSchedule::linear_warmup(10)});
  const auto loss = [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); };
  pipeline.step(StepInfo(StepFacts()), loss);
  optimizer.add_param_group({net->last->parameters(), std::make_unique<torch::optim::SGDOptions>(5)});
  for (int i = 0; i < 2; ++i) pipeline.step(StepInfo(StepFacts()), loss);
  CHECK(optimizer.param_groups()[0].options().get_lr() == Approx(0.3));
  CHECK(optimizer.param_groups()[1].options().get_lr() == Approx(1.5));
}
