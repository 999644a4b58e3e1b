// The pipeline itself: when it updates, which stages and steps it refuses, and how its state is loaded when stages are
// added or removed.
#include "holdfast/runtime/pipeline/pipeline.h"

#include <torch/torch.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "pipeline/small_net.h"
#include "ranks.h"

using namespace holdfast;
using namespace small_net;
using holdfast::storage::StatusCode;

TEST_CASE("gradients_are_applied_and_cleared_only_at_the_end_of_a_window") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  Pipeline pipeline(context_of(group, net, optimizer), {Accumulate(3)});
  const auto before = flat(net->parameters());
  const auto loss = [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); };
  StepFacts facts;
  facts.steps_left = 10;
  CHECK_FALSE(pipeline.step(StepInfo(facts), loss).window_ended());
  CHECK_FALSE(pipeline.step(StepInfo(facts), loss).window_ended());
  CHECK(flat(net->parameters()).equal(before));
  const auto outcome = pipeline.step(StepInfo(facts), loss);
  CHECK(outcome.window_ended());
  CHECK(outcome.stepped());
  CHECK_FALSE(flat(net->parameters()).equal(before));
  CHECK_FALSE(net->first->weight.grad().defined());
  CHECK(pipeline.updates() == 1);
  // The last window has the remaining batches.
  facts.steps_left = 1;
  CHECK_FALSE(pipeline.step(StepInfo(facts), loss).window_ended());
  facts.steps_left = 0;
  CHECK(pipeline.step(StepInfo(facts), loss).window_ended());
}

TEST_CASE("the_shares_of_a_window_add_up_to_one_whatever_its_batches") {
  // An epoch of 45 samples in batches of 4 and windows of 4: windows of 16, 16 and 13 samples.
  std::uint64_t left = 45, batches = 12;
  while (left > 0) {
    StepFacts first;
    first.samples = std::min<std::uint64_t>(4, left);
    first.batch_size = 4;
    first.samples_left = left - first.samples;
    first.steps_left = batches - 1;
    const auto length = holdfast::detail::window_length(4, first);
    const auto samples = holdfast::detail::window_samples(length, first);
    CHECK(samples == std::min<std::uint64_t>(16, left));
    double sum = 0;
    for (std::uint64_t i = 0; i < length; ++i) {
      StepFacts step;
      step.samples = std::min<std::uint64_t>(4, left);
      const double share = holdfast::detail::window_share(length, samples, step);
      CHECK(share == Approx(static_cast<double>(step.samples) / static_cast<double>(samples)));
      sum += share;
      left -= step.samples;
      --batches;
    }
    CHECK(sum == Approx(1));
  }
  StepFacts counted;  // a loop that makes its own batches
  counted.steps_left = 1;
  CHECK(holdfast::detail::window_length(4, counted) == 2);
  CHECK(holdfast::detail::window_share(2, holdfast::detail::window_samples(2, counted), counted) == 0.5);
}

TEST_CASE("a_step_without_a_forward_backward_or_update_call_is_refused") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  const auto says = [](const std::string& words) { return ContainsSubstring(words); };
  const auto made = [&] { return Pipeline(context_of(group, net, optimizer), {Accumulate(2)}); };
  StepFacts facts;
  facts.steps_left = 100;
  const StepInfo step(facts);
  const auto loss_of = [&] { return net->forward(torch::ones({3, kInputs})).square().mean(); };

  auto no_update = made();
  for (int i = 0; i < 2; ++i) no_update.backward(no_update.forward(step, loss_of));
  CHECK_THROWS_WITH(no_update.forward(step, loss_of), says("pipeline.update() was never called"));

  auto no_backward = made();
  no_backward.forward(step, loss_of);
  CHECK_FALSE(no_backward.update().window_ended());
  no_backward.forward(step, loss_of);
  CHECK_THROWS_WITH(no_backward.update(), says("without a pipeline.backward() before it"));

  auto no_forward = made();
  CHECK_THROWS_WITH(no_forward.backward(loss_of()), says("without a pipeline.forward() before it"));

  auto no_gradient = made();
  CHECK_THROWS_WITH(no_gradient.step(step, [&] { return loss_of().detach(); }),
                    says("does not depend on any parameter"));
  CHECK_THROWS_WITH(no_gradient.step(step, [&] { return torch::ones({2}, torch::requires_grad()); }),
                    says("one number"));

  // A program may leave out the update of a window that it rejects, and may update once a window.
  auto picky = made();
  for (int i = 0; i < 2; ++i) picky.step(step, loss_of);
  for (int i = 0; i < 4; ++i) picky.backward(picky.forward(step, loss_of));
  CHECK(picky.update().window_ended());
  CHECK(picky.updates() == 2);
}

TEST_CASE("stages_may_be_added_and_removed_between_two_starts") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  std::vector<std::string> said;
  const auto made = [&](std::vector<AnyStage> stages) {
    auto context = context_of(group, net, optimizer);
    context.pipeline = "";
    context.say = [&](const std::string& line) { said.push_back(line); };
    return Pipeline(std::move(context), std::move(stages));
  };
  const StepInfo step(StepFacts{});
  const auto loss_of = [&] { return net->forward(torch::ones({3, kInputs})).square().mean(); };
  auto before = made({Accumulate(1), ClipGradNorm(1), Ema(0.9)});
  before.step(step, loss_of);
  State state;
  before.save(state);

  auto same = made({Accumulate(1), ClipGradNorm(1), Ema(0.9)});
  same.load(state);
  CHECK(said.empty());
  auto fewer = made({Accumulate(1), ClipGradNorm(1)});
  fewer.load(state);
  REQUIRE(said.size() == 1);
  CHECK(lacking(said[0], {"stage ema", "not in the pipeline"}) == "");
  said.clear();
  auto more = made({Amp(Precision::fp16), Accumulate(1), ClipGradValue(1), LrSchedule::constant(), Ema(0.9)});
  more.load(state);
  REQUIRE(said.size() == 4);
  CHECK(lacking(said[0], {"stage amp", "not in the checkpoint"}) == "");
  CHECK(lacking(said[1], {"stage clip_grad_value", "not in the checkpoint"}) == "");
  CHECK(lacking(said[2], {"stage lr_schedule", "not in the checkpoint"}) == "");
  CHECK(lacking(said[3], {"stage clip_grad_norm", "not in the pipeline"}) == "");
  CHECK(more.updates() == 1);

  // A checkpoint that does not list the stages, as from an older Holdfast: the stages are those with saved state.
  auto values = state.values();
  REQUIRE(values.erase("stages") == 1);
  const State older = State::of_saved(state.tensors(), std::move(values), {});
  said.clear();
  made({Accumulate(1), ClipGradNorm(1), Ema(0.9)}).load(older);
  CHECK(said.empty());
  made({Amp(Precision::fp16), Accumulate(1)}).load(older);
  REQUIRE(said.size() == 2);
  CHECK(lacking(said[0], {"stage amp", "not in the checkpoint"}) == "");
  CHECK(lacking(said[1], {"stage ema", "not in the pipeline"}) == "");

  // A missing average is distinguished from one that has not begun, although neither has saved any state.
  const auto names = [&](std::vector<AnyStage> stages) {
    State held;
    made(std::move(stages)).save(held);
    return held;
  };
  said.clear();
  made({ClipGradNorm(1), Ema(0.9)}).load(names({ClipGradNorm(1), Ema(0.9)}));
  CHECK(said.empty());
  made({ClipGradNorm(1), Ema(0.9)}).load(names({ClipGradNorm(1)}));
  REQUIRE(said.size() == 1);
  CHECK(lacking(said[0], {"stage ema", "not in the checkpoint"}) == "");
}

TEST_CASE("an_invalid_order_of_stages_is_refused_with_the_reason") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  const auto made = [&](std::vector<AnyStage> stages) {
    Pipeline(context_of(group, net, optimizer), std::move(stages));
  };
  const auto says = [](const std::string& words) { return ContainsSubstring(words); };
  const auto refused = [&](std::vector<AnyStage> stages, std::initializer_list<std::string> parts) {
    return refusal_lacking(
        StatusCode::invalid, [&] { made(std::move(stages)); }, parts);
  };
  CHECK(refused({ClipGradNorm(1), Amp(Precision::fp16)}, {"amp", "clip_grad_norm", "unscaled"}) == "");
  CHECK(refused({Amp(), Ddp()}, {"ddp", "amp"}) == "");
  CHECK(refused({ClipGradNorm(1), Accumulate(2)}, {"accumulate", "clip_grad_norm"}) == "");
  CHECK(refused({Ema(0.9), LrSchedule::constant()}, {"lr_schedule", "ema"}) == "");
  CHECK(refused({Accumulate(2), Accumulate(3)}, {"two", "accumulate"}) == "");
  CHECK_THROWS_WITH(Accumulate(0), says("at least one batch"));
  CHECK_THROWS_WITH(Ema(1.0), says("below 1"));
  CHECK_THROWS_WITH(ClipGradNorm(-1), says("above 0"));
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.backoff_factor = 2}), says("backoff_factor"));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.initial_scale = kInfinity}), says("initial_scale"));
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.growth_factor = kInfinity}), says("growth_factor"));
  const auto average = std::make_shared<Ema>(0.9);
  made({average});
  CHECK(refused({average}, {"stage ema", "another pipeline"}) == "");
  made({Ddp(), Amp(), Accumulate(2), ClipGradNorm(1), ClipGradValue(1), LrSchedule::constant(), Ema(0.9)});

  torch::optim::LBFGS lbfgs(net->parameters());
  CHECK_THROWS_WITH(Pipeline(context_of(group, net, lbfgs), {}), says("LBFGS") && says("plain loop"));
  Net other = make_net();
  torch::optim::SGD both({net->first->weight, other->first->weight}, torch::optim::SGDOptions(0.1));
  CHECK_THROWS_WITH(Pipeline(context_of(group, net, both), {}), says("parameter 1 of the optimizer's group 0"));
  net->to(torch::kHalf);
  torch::optim::SGD halves(net->parameters(), torch::optim::SGDOptions(0.1));
  CHECK_THROWS_WITH(Pipeline(context_of(group, net, halves), {Amp(Precision::fp16)}), says("is in fp16 itself"));
}

TEST_CASE("a_parameter_unfrozen_after_the_pipeline_was_created_is_refused") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  net->first->weight.requires_grad_(false);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  auto context = context_of(group, net, optimizer);
  std::erase_if(context.parameters, [](const NamedParameter& one) { return !one.tensor.requires_grad(); });
  Pipeline pipeline(context, {});
  const auto loss = [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); };
  pipeline.step(StepInfo(StepFacts()), loss);
  net->first->weight.requires_grad_(true);
  const auto weights = flat(net->parameters());
  CHECK_THROWS_WITH(pipeline.step(StepInfo(StepFacts()), loss),
                    ContainsSubstring("parameter first.weight has a gradient now"));
  CHECK(flat(net->parameters()).equal(weights));
}

TEST_CASE("unsupported_gradients_are_refused_with_the_remedy") {
  Group group(RankEnvironment{}, c10::kCPU);
  torch::nn::Embedding words(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  torch::optim::SGD optimizer(words->parameters(), torch::optim::SGDOptions(0.1));
  for (const AnyStage& stage : std::vector<AnyStage>{Amp(Precision::fp16), ClipGradNorm(1), ClipGradValue(1)}) {
    Pipeline pipeline(StageContext{"test", group, c10::kCPU, *words, optimizer, {{"weight", words->weight}}}, {stage});
    CHECK_THROWS_WITH(
        pipeline.step(StepInfo(StepFacts()),
                      [&] {
                        return words->forward(torch::tensor({1, 3})).sum();
                      }),
        ContainsSubstring(stage.get()->name() + " takes dense gradients") && ContainsSubstring("without sparse(true)"));
  }
  const auto ended = ranks::run(2, [](Group& two) -> std::string {
    struct Model : torch::nn::Module {
      torch::nn::Embedding words{
          register_module("words", torch::nn::Embedding(torch::nn::EmbeddingOptions(5, 2).sparse(true)))};
    } model;
    torch::optim::SGD sgd(model.parameters(), torch::optim::SGDOptions(0.1));
    try {
      Pipeline(StageContext{"test", two, c10::kCPU, model, sgd, {{"words.weight", model.words->weight}}}, {Ddp()});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  });
  for (const auto& rank : ended) CHECK(lacking(rank.text, {"Ddp", "embedding words"}) == "");

  // A parameter without elements needs no gradient.
  struct Empty : torch::nn::Module {
    torch::Tensor some = register_parameter("some", torch::ones({3}));
    torch::Tensor none = register_parameter("none", torch::ones({0, 3}));
  } net;
  torch::optim::SGD sgd(net.parameters(), torch::optim::SGDOptions(1));
  Pipeline pipeline(StageContext{"test", group, c10::kCPU, net, sgd, {{"some", net.some}, {"none", net.none}}},
                    {Amp(Precision::fp16), ClipGradNorm(0.5, std::numeric_limits<double>::infinity()), Ema(0.5)});
  pipeline.step(StepInfo(StepFacts()), [&] { return net.some.sum() + net.none.sum(); });
  CHECK(net.some[0].item<double>() == Approx(0.5));
}
