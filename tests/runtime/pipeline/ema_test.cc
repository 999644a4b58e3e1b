// The Ema stage: averages of the parameters, and the scope in which they replace them.
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <optional>

#include "holdfast/holdfast.h"
#include "pipeline/small_net.h"
#include "tracked_run.h"

namespace {

using namespace holdfast;
using namespace small_net;

// A fused optimizer's step is skipped on the device; at that time only the device knows it.
void averages_begin_with_the_first_step(c10::DeviceType device) {
  Group group(RankEnvironment{}, device == c10::kCPU ? c10::Device(c10::kCPU) : c10::Device(device, 0));
  Net net = make_net();
  net->to(group.device());
  FusedAdamW optimizer(net->parameters(), torch::optim::AdamWOptions(0.01));
  Pipeline pipeline(context_of(group, net, optimizer), {Amp(Precision::fp16, {.initial_scale = 1024}), Ema(0.75)});
  const auto inputs = torch::ones({2, kInputs}, at::TensorOptions(group.device()));
  const auto step = [&](double factor) {
    return pipeline.step(StepInfo(StepFacts()), [&] { return net->forward(inputs).square().mean() * factor; });
  };
  const auto averages = [&] {
    const auto swapped = pipeline.stage<Ema>().swap_in();
    return flat(net->parameters());
  };
  const auto start = flat(net->parameters());
  step(1e6);
  CHECK(averages().equal(start));  // no average yet: the parameters themselves
  State none;
  pipeline.stage<Ema>().save(none);
  CHECK(none.tensors().empty());
  step(1e6);
  step(1);
  step(1e6);
  const auto first = flat(net->parameters());
  CHECK_FALSE(first.equal(start));
  step(1);
  const auto second = flat(net->parameters());
  CHECK((averages() - (0.75 * first + 0.25 * second)).abs().max().item<double>() < 1e-7);
  const auto before = averages();
  step(1e6);
  CHECK(averages().equal(before));
  CHECK(pipeline.skipped() == 4);
}

}  // namespace

TEST_CASE("averages_begin_with_the_first_step_that_is_not_skipped") { averages_begin_with_the_first_step(c10::kCPU); }

TEST_CASE("averages_on_a_gpu_begin_with_the_first_step_that_is_not_skipped", "[gpu]") {
  averages_begin_with_the_first_step(c10::kCUDA);
}

TEST_CASE("averages_are_swapped_with_parameters_and_back") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  Pipeline pipeline(context_of(group, net, optimizer), {Ema(0.75)});
  const auto loss = [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); };
  pipeline.step(StepInfo(StepFacts()), loss);
  const auto first = flat(net->parameters());
  pipeline.step(StepInfo(StepFacts()), loss);
  const auto second = flat(net->parameters());
  auto& ema = pipeline.stage<Ema>();
  {
    const auto swapped = ema.swap_in();
    CHECK((flat(net->parameters()) - (0.75 * first + 0.25 * second)).abs().max().item<double>() < 1e-7);
    CHECK_THROWS_WITH(ema.swap_in(), ContainsSubstring("in the parameters' place already"));
    CHECK_THROWS_WITH(pipeline.step(StepInfo(StepFacts()), loss), ContainsSubstring("end the scope of swap_in()"));
    State state;
    CHECK_THROWS_WITH(pipeline.save(state), ContainsSubstring("a save is due while"));
    CHECK_THROWS_WITH(ema.load(state), ContainsSubstring("a checkpoint is loaded while"));
  }
  CHECK(flat(net->parameters()).equal(second));
  pipeline.step(StepInfo(StepFacts()), loss);  // and training continues
  CHECK_FALSE(flat(net->parameters()).equal(second));
}

TEST_CASE("averages_resume_bit_exactly_even_from_before_their_first_step") {
  struct Weight : torch::nn::Module {
    torch::Tensor w = register_parameter("w", torch::ones({2}));
  };
  Group group(RankEnvironment{}, c10::kCPU);
  for (const bool fused : {false, true}) {
    for (const int saved_after : {1, 2, 3, 4}) {
      INFO("fused " << fused << ", saved after " << saved_after);
      struct Program {
        Program(Group& ranks, bool fused) {
          if (fused) {
            optimizer = std::make_unique<FusedSgd>(net.parameters(), torch::optim::SGDOptions(0.1));
          } else {
            optimizer = std::make_unique<torch::optim::SGD>(net.parameters(), torch::optim::SGDOptions(0.1));
          }
          pipeline.emplace(StageContext{"test", ranks, c10::kCPU, net, *optimizer, {{"w", net.w}}},
                           std::vector<AnyStage>{Amp(Precision::fp16), Ema(0.9)});
          state.track("w", net.w).track("pipeline", *pipeline);
        }
        void step(bool overflows) {
          pipeline->step(StepInfo(StepFacts()), [&] { return net.w.sum() * (overflows ? INFINITY : 3); });
        }
        at::Tensor averages() {
          const auto swapped = pipeline->stage<Ema>().swap_in();
          return net.w.detach().clone();
        }
        Weight net;
        std::unique_ptr<torch::optim::Optimizer> optimizer;
        std::optional<Pipeline> pipeline;
        RunState state;
      };
      // Two skipped steps, then steps to 0.7 and 0.4.
      Program whole(group, fused), before(group, fused), after(group, fused);
      for (int i = 0; i < 4; ++i) whole.step(i < 2);
      CHECK(whole.averages()[0].item<double>() == Approx(0.9 * 0.7 + 0.1 * 0.4).epsilon(1e-6));
      for (int i = 0; i < saved_after; ++i) before.step(i < 2);
      TrackedRun run;
      run.save(before.state);
      for (int i = 0; i < 3; ++i) after.step(false);  // the restore goes back from here
      after.state.restore(run.newest());
      for (int i = saved_after; i < 4; ++i) after.step(i < 2);
      CHECK(after.averages().equal(whole.averages()));
      CHECK(after.pipeline->updates() == 2);
      CHECK(after.pipeline->skipped() == 2);
    }
  }
}

TEST_CASE("the_average_of_a_new_parameter_starts_at_its_value") {
  struct Weights : torch::nn::Module {
    explicit Weights(bool larger) {
      if (larger) register_parameter("head", torch::full({2}, 5.f));
    }
    torch::Tensor body = register_parameter("body", torch::ones({2}));
  };
  Group group(RankEnvironment{}, c10::kCPU);
  TrackedRun run;
  for (const bool larger : {false, true}) {
    Weights net(larger);
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1));
    StageContext context{"test", group, c10::kCPU, net, optimizer, {}};
    for (const auto& one : net.named_parameters()) context.parameters.push_back({one.key(), one.value()});
    Pipeline pipeline(context, {Ema(0.5)});
    RunState state;
    state.track("pipeline", pipeline);
    if (larger) {
      state.restore(run.newest());
      const auto swapped = pipeline.stage<Ema>().swap_in();
      CHECK(flat(net.parameters()).equal(torch::tensor({0.9f, 0.9f, 5.f, 5.f}).to(torch::kDouble)));
    } else {
      pipeline.step(StepInfo(StepFacts()), [&] { return net.body.sum(); });
      run.save(state);
    }
  }
}

TEST_CASE("averages_of_parameters_that_share_storage_do_not_overlap") {
  // Parameters that are parts of one tensor (as in cuDNN's LSTM layout), of a transposed one, and of one with gaps.
  struct Parts : torch::nn::Module {
    torch::Tensor all = torch::arange(24, torch::kFloat);
    torch::Tensor a = register_parameter("a", all.narrow(0, 0, 4));
    torch::Tensor b = register_parameter("b", all.narrow(0, 4, 6));
    torch::Tensor c = register_parameter("c", torch::arange(6, torch::kFloat).view({2, 3}).t());
    torch::Tensor d = register_parameter("d", torch::arange(12, torch::kFloat).view({3, 4}).select(1, 1).detach());
  };
  Group group(RankEnvironment{}, c10::kCPU);
  Parts net;
  torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
  StageContext context{"test", group, c10::kCPU, net, optimizer, {}};
  for (const auto& parameter : net.named_parameters())
    context.parameters.push_back({parameter.key(), parameter.value()});
  Pipeline pipeline(std::move(context), {Ema(0.5)});
  const auto loss = [&] { return net.a.sum() + net.b.sum() + net.c.sum() + net.d.sum(); };
  for (int i = 0; i < 2; ++i) pipeline.step(StepInfo(StepFacts()), loss);
  const auto weights = flat(net.parameters());
  {
    const auto swapped = pipeline.stage<Ema>().swap_in();
    CHECK(flat(net.parameters()).equal(weights + 0.5));
    CHECK(net.c.sizes() == at::IntArrayRef{3, 2});
  }
  CHECK(flat(net.parameters()).equal(weights));
  pipeline.step(StepInfo(StepFacts()), loss);
  CHECK(flat(net.parameters()).equal(weights - 1));
}
