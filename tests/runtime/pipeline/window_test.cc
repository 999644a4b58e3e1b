// A window of micro-batches is one step in every case: batches of another size after a resume, another precision, other
// pipelines on the same parameters, batches that fail.
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "holdfast/holdfast.h"
#include "ranks.h"
#include "tracked_run.h"

namespace {

using namespace holdfast;

struct WeightImpl : torch::nn::Module {
  explicit WeightImpl(const torch::Tensor& initial = torch::zeros({2})) : w(register_parameter("w", initial)) {}
  torch::Tensor w;
};
TORCH_MODULE(Weight);

std::vector<std::string>& said() {
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
                              "",
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
  std::uint64_t left;  // of the epoch
  RunState state;
};

struct Fails : torch::autograd::Function<Fails> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) { return x.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    throw std::runtime_error("out of memory");
  }
};

}  // namespace

TEST_CASE("a_window_resumed_with_other_batches_is_filled_to_the_sample") {
  Program before({Accumulate(4)}, 128);
  before.step(16);
  before.step(16);
  TrackedRun run;
  run.save(before.state);

  Program smaller({Accumulate(8)}, 96);  // half the batch size, twice as many batches
  smaller.state.restore(run.newest());
  for (int i = 0; i < 3; ++i) CHECK_FALSE(smaller.step(8).window_ended());
  CHECK(smaller.step(8).window_ended());
  CHECK(smaller.weight() == -1);  // the mean of 64 samples, not of 48
  for (int i = 0; i < 7; ++i) CHECK_FALSE(smaller.step(8).window_ended());
  CHECK(smaller.step(8).window_ended());
  CHECK(smaller.weight() == -2);

  Program larger({Accumulate(2)}, 96);
  larger.state.restore(run.newest());
  CHECK(larger.step(32).window_ended());
  CHECK(larger.weight() == -1);

  Program unfit({Accumulate(4)}, 96);
  unfit.state.restore(run.newest());
  CHECK_THROWS_WITH(unfit.step(24), Catch::Matchers::Contains("window of 64 samples, of which 32 are left") &&
                                        Catch::Matchers::Contains("batch_size of 32, 16, 8, 4"));

  // The epoch's last window has the remaining samples, in batches of any size.
  Program tail({Accumulate(4)}, 45);
  tail.step(16);
  run.save(tail.state);
  Program other({Accumulate(4)}, 29);
  other.state.restore(run.newest());
  for (int i = 0; i < 3; ++i) CHECK_FALSE(other.step(8).window_ended());
  CHECK(other.step(8).window_ended());
  CHECK(other.weight() == Approx(-1));
}

TEST_CASE("a_window_goes_on_in_another_precision") {
  for (const auto& [then, now] : {std::pair{Precision::fp16, Precision::bf16},
                                  {Precision::fp16, Precision::fp32},
                                  {Precision::fp32, Precision::fp16},
                                  {Precision::fp16, Precision::fp16}}) {
    INFO(to_string(then) << " to " << to_string(now));
    Program before({Amp(then, {.initial_scale = 1024}), Accumulate(2)});
    before.step(1, 3);
    TrackedRun run;
    run.save(before.state);
    Program after({Amp(now, {.initial_scale = 1024}), Accumulate(2)});
    after.state.restore(run.newest());
    CHECK(after.step(1, 5).stepped());
    CHECK(after.weight() == -4);
  }
  // A batch that overflowed in fp16 would have been skipped.
  Program before({Amp(Precision::fp16), Accumulate(2)});
  before.step(1, std::numeric_limits<double>::infinity());
  TrackedRun run;
  run.save(before.state);
  said().clear();
  Program after({Amp(Precision::bf16), Accumulate(2)});
  after.state.restore(run.newest());
  REQUIRE(said().size() == 1);
  CHECK_THAT(said()[0], Catch::Matchers::Contains("had overflowed"));
  after.step(1, 2);
  CHECK(after.weight() == -1);
}

TEST_CASE("what_others_do_to_gradients_between_a_windows_batches_is_not_in_it") {
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

TEST_CASE("a_batch_that_fails_has_no_part_in_its_window") {
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

TEST_CASE("a_backward_pass_that_fails_drops_its_window_and_no_half_of_it") {
  Program program({Accumulate(2)});
  program.step(1);
  said().clear();
  CHECK_THROWS_WITH(program.pipeline.step(program.next(1),
                                          [&] {
                                            const auto half = program.net->w[1] * 1;  // its gradient is computed first
                                            return Fails::apply(program.net->w[0] * 1) + half;
                                          }),
                    Catch::Matchers::Contains("out of memory"));
  REQUIRE(said().size() == 1);
  CHECK_THAT(said()[0], Catch::Matchers::Contains("a backward pass failed"));
  CHECK_FALSE(program.step(1).window_ended());
  CHECK(program.step(1).window_ended());
  CHECK(program.net->w.equal(torch::full({2}, -1.f)));
}

TEST_CASE("a_backward_pass_that_fails_on_one_rank_stops_all_where_its_exception_is_caught", "[full]") {
  for (const int failing : {1, 2, 5}) {  // inside a window, and at its end
    const auto ended = ranks::run(2, [failing](Group& group) -> std::string {
      Weight net;
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(1));
      Pipeline pipeline(
          StageContext{"test", group, c10::kCPU, *net, optimizer, {{"w", net->w}}, "", [](const auto&) {}},
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
      CHECK(rank.text.starts_with("rank 1 failed in backward at window_test.cc:"));
      CHECK_THAT(rank.text, Catch::Matchers::Contains("out of memory"));
    }
  }
}

TEST_CASE("a_parameter_that_a_window_did_not_use_gets_no_gradient_whatever_others_did", "[full]") {
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
                                   "",
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

TEST_CASE("an_update_without_a_backward_is_none") {
  Program program({Accumulate(1), LrSchedule::linear_warmup(4)});
  program.step(1);
  program.pipeline.forward(program.next(1), [&] { return program.net->w.sum(); });
  CHECK_FALSE(program.pipeline.update().window_ended());
  CHECK(program.pipeline.updates() == 1);
  CHECK_THROWS_WITH(program.pipeline.step(program.next(1), [&] { return program.net->w.sum().detach(); }),
                    Catch::Matchers::Contains("leads to no parameter"));
}

TEST_CASE("a_stage_that_the_checkpoint_does_not_know_begins_anew") {
  const std::vector<std::pair<std::string, AnyStage>> stages{{"ddp", Ddp()},
                                                             {"amp", Amp(Precision::fp16)},
                                                             {"accumulate", Accumulate(2)},
                                                             {"clip", ClipGradNorm(10)},
                                                             {"schedule", LrSchedule::linear_warmup(4)},
                                                             {"ema", Ema(0.5)}};
  for (const auto& [name, stage] : stages) {
    INFO(name);
    Program before({});
    before.step(1);
    before.step(1);
    TrackedRun run;
    run.save(before.state);
    Program after({stage});
    after.state.restore(run.newest());
    while (!after.step(1).window_ended()) {
    }
    CHECK(after.weight() == (name == "schedule" ? -2.75 : -3));  // the third step of the warm-up
  }
}

TEST_CASE("sparse_gradients_of_a_window_are_saved") {
  const auto train = [](Pipeline& pipeline, torch::nn::Embedding& words, int from, int to) {
    StepFacts facts;
    facts.steps_left = 10;
    for (int i = from; i < to; ++i) {
      pipeline.step(StepInfo(facts), [&] {
        return (words->forward(torch::tensor({1, i % 5, 3, 3})) / (3.0 + i)).square().sum();
      });
    }
  };
  struct Words {
    Words() : words(torch::nn::EmbeddingOptions(5, 2).sparse(true)) {
      const torch::NoGradGuard no_grad;
      words->weight.copy_(torch::arange(10).view({5, 2}) * 0.37);
      state.track("words", words).track("pipeline", pipeline);
    }
    Group group{RankEnvironment{}, c10::kCPU};
    torch::nn::Embedding words;
    torch::optim::SGD optimizer{words->parameters(), torch::optim::SGDOptions(0.3)};
    Pipeline pipeline{StageContext{"test", group, c10::kCPU, *words, optimizer, {{"weight", words->weight}}},
                      {Accumulate(4)}};
    RunState state;
  };
  Words whole, before, after;
  train(whole.pipeline, whole.words, 0, 8);
  train(before.pipeline, before.words, 0, 3);
  TrackedRun run;
  run.save(before.state);
  after.state.restore(run.newest());
  train(after.pipeline, after.words, 3, 8);
  CHECK(after.words->weight.equal(whole.words->weight));
}

namespace {

struct SmallNetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return out(dropout(torch::relu(norm(in(x))))); }
  torch::nn::Linear in{register_module("in", torch::nn::Linear(4, 6))};
  torch::nn::BatchNorm1d norm{register_module("norm", torch::nn::BatchNorm1d(6))};
  torch::nn::Dropout dropout{register_module("dropout", torch::nn::Dropout(0.3))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(6, 2))};
};
TORCH_MODULE(SmallNet);

// Epochs of 17 batches in windows of 3, with some losses that overflow, and a metric from time to time.
struct Training {
  explicit Training(bool fused) {
    torch::manual_seed(3);
    net = SmallNet();
    const auto options = torch::optim::AdamWOptions(0.01).amsgrad(true);
    if (fused) {
      optimizer = std::make_unique<FusedAdamW>(net->parameters(), options);
    } else {
      optimizer = std::make_unique<torch::optim::AdamW>(net->parameters(), options);
    }
    StageContext context{"test", group, c10::kCPU, *net, *optimizer, {}};
    for (const auto& one : net->named_parameters()) context.parameters.push_back({one.key(), one.value()});
    pipeline.emplace(context,
                     std::vector<AnyStage>{Amp(Precision::fp16, {.initial_scale = 65536.0 * 256, .growth_interval = 3}),
                                           Accumulate(3), ClipGradNorm(0.5),
                                           LrSchedule::plateau({.factor = 0.5, .patience = 1}), Ema(0.8)});
    state.track("net", net).track("optimizer", *optimizer).track("pipeline", *pipeline).track("done", done);
  }
  void run(std::uint64_t to) {
    constexpr std::uint64_t kBatches = 17, kSamples = 4;
    for (; done < to; ++done) {
      StepFacts facts;
      facts.epoch = done / kBatches;
      facts.samples = facts.batch_size = kSamples;
      facts.steps_left = kBatches - 1 - done % kBatches;
      facts.samples_left = facts.steps_left * kSamples;
      pipeline->step(StepInfo(facts), [&] {
        const auto loss = net->forward(torch::randn({kSamples, 4})).square().mean();
        return done % 23 == 19 ? loss * std::numeric_limits<double>::infinity() : loss;
      });
      if (done % 5 == 4) pipeline->stage<LrSchedule>().observe(done % 10 == 4 ? 0.5 : 1);
    }
  }

  Group group{RankEnvironment{}, c10::kCPU};
  SmallNet net{nullptr};
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::optional<Pipeline> pipeline;
  std::uint64_t done = 0;
  RunState state;
};

}  // namespace

TEST_CASE("a_resume_after_any_step_is_to_the_bit_with_windows_and_skipped_updates") {
  for (const bool fused : {false, true}) {
    Training whole(fused);
    whole.run(70);
    CHECK(whole.pipeline->updates() > 10);
    CHECK(whole.pipeline->skipped() > 5);
    const auto expected = bytes_of(whole.state);
    for (std::uint64_t cut = 1; cut < 70; ++cut) {
      INFO((fused ? "fused, " : "") << "saved after step " << cut);
      TrackedRun run;
      {
        Training before(fused);
        before.run(cut);
        run.save(before.state);
      }
      Training after(fused);
      torch::manual_seed(99);
      after.state.restore(run.newest());
      after.run(70);
      CHECK(other_parts(bytes_of(after.state), expected) == kNone);
    }
  }
}
