// The Amp stage: steps whose gradients overflow are skipped.
#include <torch/torch.h>

#include <limits>
#include <memory>

#include "catch.h"
#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "pipeline/small_net.h"

using namespace holdfast;
using namespace small_net;

TEST_CASE("a_step_whose_gradients_overflow_is_skipped_and_the_scale_reduced") {
  Group group(RankEnvironment{}, c10::kCPU);
  for (const bool fused : {false, true}) {
    INFO("fused " << fused);
    Net net = make_net();
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    if (fused) {
      optimizer = std::make_unique<FusedAdamW>(net->parameters(), torch::optim::AdamWOptions(0.01));
    } else {
      optimizer = std::make_unique<torch::optim::AdamW>(net->parameters(), torch::optim::AdamWOptions(0.01));
    }
    Pipeline pipeline(
        context_of(group, net, *optimizer),
        {Amp(Precision::fp16,
             {.initial_scale = 1024, .growth_factor = 4, .backoff_factor = 0.25, .growth_interval = 2}),
         ClipGradNorm(1), LrSchedule::function([](std::uint64_t step) { return 1.0 / static_cast<double>(step + 1); }),
         Ema(0.5)});
    const auto loss = [&](double factor) {
      return [&net, factor] { return net->forward(torch::ones({2, kInputs})).square().mean() * factor; };
    };
    StepFacts facts;
    CHECK(pipeline.step(StepInfo(facts), loss(1)).stepped());
    const auto weights = flat(net->parameters());
    {
      const auto swapped = pipeline.stage<Ema>().swap_in();
      CHECK(flat(net->parameters()).equal(weights));  // those of the first step
    }
    const auto skipped = pipeline.step(StepInfo(facts), loss(1e6));
    CHECK(skipped.window_ended());
    CHECK_FALSE(skipped.stepped());
    CHECK(flat(net->parameters()).equal(weights));
    {
      const auto swapped = pipeline.stage<Ema>().swap_in();
      CHECK(flat(net->parameters()).equal(weights));
    }
    CHECK(pipeline.stage<Amp>().scale() == 256);
    CHECK(pipeline.updates() == 1);
    CHECK(pipeline.skipped() == 1);
    CHECK(pipeline.step(StepInfo(facts), loss(1)).stepped());
    CHECK(pipeline.lr() == Approx(0.005));  // the second step that was taken
    CHECK_FALSE(flat(net->parameters()).equal(weights));
    CHECK(pipeline.step(StepInfo(facts), loss(1)).stepped());
    CHECK(pipeline.stage<Amp>().scale() == 1024);  // it has grown after two good steps
  }
}

TEST_CASE("a_run_that_skips_every_step_is_reported_once") {
  Group group(RankEnvironment{}, c10::kCPU);
  for (const bool fused : {false, true}) {
    Net net = make_net();
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    if (fused) {
      optimizer = std::make_unique<FusedAdamW>(net->parameters());
    } else {
      optimizer = std::make_unique<torch::optim::AdamW>(net->parameters());
    }
    std::vector<std::string> said;
    auto context = context_of(group, net, *optimizer);
    context.say = [&](const std::string& line) { said.push_back(line); };
    Pipeline pipeline(context, {Amp(Precision::fp16)});
    const auto loss = [&] { return net->last->bias.sum() * std::numeric_limits<double>::infinity(); };
    for (int i = 0; i < 99; ++i) pipeline.step(StepInfo(StepFacts()), loss);
    CHECK(pipeline.skipped() == 99);
    CHECK(said.empty());
    for (int i = 0; i < 150; ++i) pipeline.step(StepInfo(StepFacts()), loss);
    CHECK(pipeline.skipped() == 249);
    REQUIRE(said.size() == 1);
    CHECK(lacking(said[0], {"100 updates", "skipped"}) == "");
  }
}
