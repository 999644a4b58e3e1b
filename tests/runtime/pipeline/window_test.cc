// A window of micro-batches is one step in every case: other pipelines on the same parameters, batches that fail,
// several losses of one batch.
#include <torch/torch.h>

#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "pipeline/weight_program.h"
#include "ranks.h"

namespace {

using namespace holdfast;
using namespace weight_program;

struct Fails : torch::autograd::Function<Fails> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) { return x.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    throw std::runtime_error("out of memory");
  }
};

}  // namespace

TEST_CASE("gradients_changed_by_others_between_the_batches_of_a_window_are_excluded") {
  Program judge({Accumulate(2)});
  Weight draws;
  torch::optim::SGD optimizer(draws->parameters(), torch::optim::SGDOptions(1));
  Pipeline painter(StageContext{"painter", judge.group, c10::kCPU, *draws, optimizer, {{"w", draws->w}}},
                   {Accumulate(3)});
  for (int i = 0; i < 6; ++i) {
    const auto ended = judge.step(1).window_ended();
    CHECK(ended == (i % 2 == 1));
    const auto through_the_judge = [&] { return (draws->w * 7 + judge.net->w * 100).sum(); };
    CHECK(painter.step(judge.next(1), through_the_judge).window_ended() == (i % 3 == 2));
    judge.optimizer.zero_grad();
  }
  CHECK(judge.weight() == -3);
  CHECK(draws->w[0].item<double>() == Approx(-14));
}

TEST_CASE("a_failed_batch_is_not_counted_in_its_window") {
  for (int failing = 0; failing < 11; ++failing) {  // the last three are in the epoch's short last window
    for (const bool again : {false, true}) {
      INFO("batch " << failing << (again ? " is tried again" : " is left out"));
      Program program({Accumulate(4)}, 45);
      std::uint64_t ends = 0;
      for (int i = 0; i < 12; ++i) {
        const StepInfo batch = program.next(4);
        bool fails = i == failing;
        for (bool done = false; !done;) {
          try {
            const auto outcome = program.pipeline.step(batch, [&] {
              if (std::exchange(fails, false)) throw std::runtime_error("out of memory");
              return program.net->w.sum();
            });
            ends += outcome.window_ended() ? 1 : 0;
            done = true;
          } catch (const std::runtime_error&) {
            done = !again;
          }
        }
      }
      CHECK(ends == 3);
      CHECK(program.pipeline.updates() == 3);
      CHECK(program.weight() == Approx(-3));  // three whole means, of the batches that did not fail
    }
  }
  // A failed batch also has no part in its window when steps are counted, even in the last windows.
  for (const std::uint64_t failing : {0, 1, 3, 4}) {
    Program program({Accumulate(3)});
    for (std::uint64_t i = 0; i < 6; ++i) {
      StepFacts facts;
      facts.steps_left = 5 - i;
      if (i != failing) program.pipeline.step(StepInfo(facts), [&] { return program.net->w.sum(); });
    }
    CHECK(program.weight() == Approx(-2));
  }
  // A batch also has no part in its window if the program inspects the loss and skips it.
  Program program({Accumulate(2)});
  for (const double slope : {1.0, std::numeric_limits<double>::infinity(), 3.0}) {
    const auto loss = program.pipeline.forward(program.next(1), [&] { return (program.net->w * slope).sum(); });
    if (!loss.isfinite().item<bool>()) continue;
    program.pipeline.backward(loss);
    program.pipeline.update();
  }
  CHECK(program.weight() == -2);
}

TEST_CASE("a_failed_backward_pass_discards_the_gradients_of_its_whole_window") {
  Program program({Accumulate(2)});
  program.step(1);
  said().clear();
  CHECK_THROWS_WITH(program.pipeline.step(program.next(1),
                                          [&] {
                                            const auto half = program.net->w[1] * 1;  // its gradient is computed first
                                            return Fails::apply(program.net->w[0] * 1) + half;
                                          }),
                    ContainsSubstring("out of memory"));
  REQUIRE(said().size() == 1);
  CHECK_THAT(said()[0], ContainsSubstring("a backward pass failed"));
  CHECK_FALSE(program.step(1).window_ended());
  CHECK(program.step(1).window_ended());
  CHECK(program.net->w.equal(torch::full({2}, -1.f)));
}

TEST_CASE("a_failed_backward_pass_on_one_rank_stops_all_ranks_although_its_exception_is_caught", "[full]") {
  for (const int failing : {1, 2, 5}) {  // inside a window, and at its end
    const auto ended = ranks::run(2, [failing](Group& group) -> std::string {
      Weight net;
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(1));
      Pipeline pipeline(
          StageContext{"test", group, c10::kCPU, *net, optimizer, {{"w", net->w}}, {}, [](const auto&) {}},
          {Ddp(), Accumulate(3)});
      std::optional<RankFault> fault;
      for (int i = 0; i < 12; ++i) {
        StepFacts facts;
        facts.steps_left = static_cast<std::uint64_t>(11 - i);
        try {
          pipeline.step(StepInfo(facts), [&] {
            const auto loss = net->w.sum();
            return i == failing && group.rank() == 1 ? Fails::apply(loss) : loss;
          });
        } catch (const RankFault& found) {
          fault = found;
        } catch (const std::exception&) {
        }
      }
      if (fault) throw RankFault(*fault);
      return "went on";
    });
    for (const auto& rank : ended) {
      INFO("batch " << failing << ": " << rank.text);
      CHECK(rank.code == ranks::kStopped);
      CHECK(rank.seconds < 5);
      CHECK(rank.text.starts_with("rank 1 "));
      CHECK(lacking(rank.text, {"backward at window_test.cc", "out of memory"}) == "");
    }
  }
}

TEST_CASE("a_parameter_unused_in_a_window_gets_no_gradient_from_other_losses", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    struct Two : torch::nn::Module {
      torch::Tensor used = register_parameter("used", torch::ones({1}));
      torch::Tensor other = register_parameter("other", torch::ones({1}));
    } net;
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.5).weight_decay(0.5));
    Pipeline pipeline(StageContext{"test",
                                   group,
                                   c10::kCPU,
                                   net,
                                   optimizer,
                                   {{"used", net.used}, {"other", net.other}},
                                   {},
                                   [](const auto&) {}},
                      {Ddp({.find_unused = true}), Accumulate(2)});
    const auto step = [&](std::uint64_t epoch, const torch::Tensor& weight) {
      StepFacts facts;
      facts.epoch = epoch;
      facts.samples = facts.batch_size = 2;
      facts.samples_left = 8;
      facts.steps_left = 4;
      pipeline.step(StepInfo(facts), [&] { return weight.sum(); });
    };
    for (int i = 0; i < 4; ++i) {
      step(0, net.used);
      net.other.sum().backward();  // as a generator's loss passes through its discriminator
    }
    step(0, net.other);  // in a window that the loop leaves
    step(1, net.used);
    step(1, net.used);
    return net.other.item<double>() == 1 && pipeline.updates() == 3 ? "right" : "it was stepped";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("two_losses_of_one_batch_count_as_one_batch") {
  Program program({Accumulate(3)});
  for (int i = 0; i < 3; ++i) {
    torch::Tensor other;
    const auto loss = program.pipeline.forward(program.next(1), [&] {
      other = (program.net->w * 2).sum();
      return program.net->w.sum();
    });
    program.pipeline.backward(loss);
    program.pipeline.backward(other);
    CHECK(program.pipeline.update().window_ended() == (i == 2));
  }
  CHECK(program.weight() == -3);
}

TEST_CASE("an_update_without_a_backward_pass_is_not_counted") {
  Program program({Accumulate(1), LrSchedule::linear_warmup(4)});
  program.step(1);
  program.pipeline.forward(program.next(1), [&] { return program.net->w.sum(); });
  CHECK_FALSE(program.pipeline.update().window_ended());
  CHECK(program.pipeline.updates() == 1);
  CHECK_THROWS_WITH(program.pipeline.step(program.next(1), [&] { return program.net->w.sum().detach(); }),
                    ContainsSubstring("does not depend on any parameter"));
}
