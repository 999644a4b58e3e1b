// What a session logs about the program: state that is not tracked, and what keeps a resume from being bit-exact.
#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "catch.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/runtime/session/session.h"
#include "message_parts.h"
#include "session_run.h"
#include "summing_program.h"

namespace {

using namespace holdfast;
using namespace summing;

}  // namespace

TEST_CASE("a_start_reports_untracked_parameters_and_options_without_effect") {
  const std::vector<std::string> untracked = {"parameters", "session.track()"},
                                 useless = {"precision", "bf16", "Amp()"};
  const Run plain;
  auto options = plain.options();
  options.precision = "bf16";
  double sum = 0;
  plain.session([&](Session& s) { return sum_samples(s, 1, sum); }, options);
  CHECK(has_line(plain.said(), untracked));
  CHECK(has_line(plain.said(), useless));

  const Run piped;
  options.dir = piped.options().dir;
  piped.session(
      [&](Session& s) {
        torch::nn::Linear net(1, 1);
        torch::optim::SGD optimizer(net->parameters(), 0.01);
        auto pipeline = s.pipeline(net, optimizer, {Amp()});
        s.restore();
        return s.finish();
      },
      options);
  CHECK(has_line(piped.said(), {" cpu, ", " threads, ", "bf16", "seed "}));
  CHECK_FALSE(has_line(piped.said(), untracked));
  CHECK_FALSE(has_line(piped.said(), useless));
}

TEST_CASE("a_start_reports_why_a_resume_is_not_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, bool stops) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      for (auto& batch : session.steps(loader, {.epochs = 2})) {
        if (stops && batch.number() == 1) session.stop("enough");
      }
      return session.finish();
    });
  };
  CHECK(life(2, true) == kRunAgain);
  CHECK(life(4, false) == kDone);
  CHECK(has_line(run.said(), {"sample-exact", "not bit-exact", "batches of 2 → 4"}));
}

TEST_CASE("a_nested_loop_reports_why_a_resume_is_not_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, bool stops) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      for (auto& round : session.steps({.count = 2})) {
        for ([[maybe_unused]] auto& batch : session.steps(loader, {.epochs = 1})) continue;
        if (stops && round.number() == 1) session.stop("enough");  // between two loops over the loader
      }
      return session.finish();
    });
  };
  CHECK(life(2, true) == kRunAgain);
  CHECK(life(4, false) == kDone);
  CHECK(has_line(run.said(), {"sample-exact", "not bit-exact", "batches of 2 → 4"}));
}

TEST_CASE("a_loader_without_a_loop_reports_why_a_resume_is_not_bit_exact") {
  const Run run;
  const auto life = [&](std::int64_t batch_size, std::uint64_t steps) {
    return run.session([&](Session& session) {
      Batches loader(Numbers().map(torch::data::transforms::Stack<>()), {.batch_size = batch_size});
      session.track("by_hand", loader);
      for ([[maybe_unused]] auto& step : session.steps({.count = steps})) (void)loader.next();
      return session.finish();
    });
  };
  CHECK(life(2, 2) == kDone);
  CHECK(run.said().find("by_hand") == std::string::npos);
  CHECK(life(4, 3) == kDone);
  CHECK(has_line(run.said(), {"'by_hand'", "sample-exact", "not bit-exact", "batches of 2 → 4"}));
}

TEST_CASE("an_untracked_optimizer_is_reported_by_its_module_at_the_first_step") {
  for (const bool drops_gradients_first : {true, false}) {
    const Run run;
    run.session([&](Session& session) {
      torch::nn::Linear net(1, 1), target(1, 1), with_optimizer(1, 1);
      torch::optim::Adam optimizer(net->parameters(), 0.1);
      torch::optim::SGD tracked(with_optimizer->parameters(), 0.1);
      session.track("net", net).track("target", target).track("with_optimizer", with_optimizer);
      session.track("tracked", tracked);
      for ([[maybe_unused]] auto& step : session.steps({.count = 2})) {
        if (drops_gradients_first) optimizer.zero_grad();
        const torch::Tensor x = torch::ones({1, 1});
        (with_optimizer->forward(net->forward(x)) - target->forward(x).detach()).sum().backward();
        optimizer.step();
        tracked.step();
        if (!drops_gradients_first) optimizer.zero_grad();
      }
      return session.finish();
    });
    INFO(run.said());
    CHECK(has_line(run.said(), {"optimizer", "'net'"}));
    CHECK_FALSE(has_line(run.said(), {"optimizer", "'target'"}));
    CHECK_FALSE(has_line(run.said(), {"optimizer", "'with_optimizer'"}));
  }
}

TEST_CASE("a_submodule_without_a_tracked_optimizer_is_reported_by_its_name") {
  const Run run;
  run.session([&](Session& session) {
    torch::nn::Sequential net(torch::nn::Linear(1, 1), torch::nn::Linear(1, 1));
    torch::optim::SGD optimizer(net[1]->parameters(), 0.1);
    session.track("net", net).track("optimizer", optimizer);
    for ([[maybe_unused]] auto& step : session.steps({.count = 1})) net->forward(torch::ones({1, 1})).sum().backward();
    return session.finish();
  });
  CHECK(has_line(run.said(), {"optimizer", "'net.0'"}));
  CHECK_FALSE(has_line(run.said(), {"optimizer", "'net'"}));
}

TEST_CASE("an_untracked_optimizer_is_reported_once_if_the_first_step_has_a_nested_loop") {
  const Run run;
  run.session([](Session& session) {
    torch::nn::Linear net(2, 1), forgotten(2, 1);
    torch::optim::SGD optimizer(net->parameters(), 0.1);
    session.track("net", net).track("optimizer", optimizer).track("forgotten", forgotten);
    for ([[maybe_unused]] auto& round : session.steps({.count = 1})) {
      for ([[maybe_unused]] auto& step : session.steps({.count = 1})) {
        (net->forward(torch::ones({1, 2})) + forgotten->forward(torch::ones({1, 2}))).sum().backward();
      }
    }
    return session.finish();
  });
  CHECK(count_lines(run.said(), {"optimizer", "'forgotten'"}) == 1);
}
