// Modules and pipelines in the loops of a session: accumulation windows, frozen parameters, evaluation mode.
#include <torch/torch.h>

#include <stdexcept>

#include "catch.h"
#include "holdfast/runtime/pipeline/stages/accumulate.h"
#include "holdfast/runtime/pipeline/stages/ema.h"
#include "holdfast/runtime/session/session.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

struct Weight : torch::nn::Module {
  torch::Tensor w = register_parameter("w", torch::zeros({1}));
};

}  // namespace

TEST_CASE("an_unfinished_accumulation_window_is_dropped_when_its_loop_is_left") {
  Run run;
  run.session([](Session& s) {
    Weight net;
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
    auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
    Batches loader = batches(), other(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = 5});
    const auto slope = [&](double x) { return [&net, x] { return (net.w * x).sum(); }; };
    for (auto& batch : s.steps(loader, {.epochs = 2})) {
      pipeline.step(batch, slope(100));
      if (batch.number() == 2) break;
    }
    for (auto& batch : s.steps(other, {.epochs = 1})) pipeline.step(batch, slope(1));
    CHECK(net.w.item<double>() == -1);
    for (auto& step : s.steps({.count = 5})) {
      pipeline.step(step, slope(100));
      break;
    }
    for (auto& step : s.steps({.count = 3})) pipeline.step(step, slope(1));
    CHECK(net.w.item<double>() == -2);
    CHECK(pipeline.updates() == 2);
    return s.finish();
  });
}

TEST_CASE("an_accumulation_window_of_a_later_loop_continues_after_a_resume") {
  Run run;
  run.every = "1";
  for (const bool again : {false, true}) {
    const auto life = [again](Session& s) {
      Weight net;
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
      auto pipeline = s.pipeline(net, optimizer, {Accumulate(3)});
      const auto step = [&](const StepInfo& at, double x) { pipeline.step(at, [&] { return (net.w * x).sum(); }); };
      for (auto& at : s.steps({.count = 2})) step(at, 1);
      for (auto& at : s.steps({.count = 3})) {
        if (!again && at.number() == 3) throw std::runtime_error("an end without a save");
        step(at, at.number() == 3 ? 4 : 1);
      }
      CHECK(net.w.item<double>() == -3);
      s.finish();
    };
    if (again) {
      run.session(life);
    } else {
      CHECK_THROWS_AS(run.session(life), std::runtime_error);
    }
  }
}

TEST_CASE("parameters_unfrozen_during_a_run_are_trained_in_a_pipeline_after_a_resume") {
  Run run;
  run.every = "1";
  for (const bool again : {false, true}) {
    const auto life = [&](Session& s) {
      Weight net;
      const torch::Tensor other = net.register_parameter("other", torch::zeros({1}));
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
      auto pipeline = s.pipeline(net, optimizer, {Ema(0.5)});
      torch::Tensor(other).set_requires_grad(false);
      for (auto& at : s.steps({.count = 4})) {
        if (at.number() == 2) torch::Tensor(other).set_requires_grad(true);
        if (!again && at.number() == 3) throw std::runtime_error("an end without a save");
        pipeline.step(at, [&] { return (net.w + other).sum(); });
      }
      CHECK(net.w.item<double>() == -4);
      CHECK(other.item<double>() == -3);
      s.finish();
    };
    if (again) {
      run.session(life);
    } else {
      CHECK_THROWS_AS(run.session(life), std::runtime_error);
    }
  }
}

TEST_CASE("eval_after_the_last_step_does_not_cause_another_save") {
  const Run run;
  for (int start = 0; start < 2; ++start) {
    run.session([&](Session& s) {
      Weight net;
      s.track("net", net);
      for ([[maybe_unused]] auto& at : s.steps({.count = 2})) {
      }
      net.eval();
      CHECK(s.finish() == kDone);
    });
    CHECK(run.versions().size() == 1);
    CHECK(run.versions()[0].values.at("net").at("eval").empty());
  }
}
