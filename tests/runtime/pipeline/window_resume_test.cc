// A resume inside a window of micro-batches: with batches of another size, in another precision, with other stages, and
// to the bit.
#include <torch/torch.h>

#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "holdfast/holdfast.h"
#include "message_parts.h"
#include "pipeline/weight_program.h"
#include "tracked_run.h"

using namespace holdfast;
using namespace weight_program;

TEST_CASE("a_window_resumed_with_another_batch_size_has_the_same_number_of_samples") {
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
  CHECK(refusal_lacking(storage::StatusCode::misfit, [&] { unfit.step(24); },
                        {"64 samples", "32 are left", "batches of 24", "batch_size of 32, 16, 8, 4"}) == "");

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

TEST_CASE("a_window_continues_in_another_precision") {
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
  CHECK_THAT(said()[0], ContainsSubstring("had overflowed"));
  after.step(1, 2);
  CHECK(after.weight() == -1);
}

TEST_CASE("a_stage_without_saved_state_starts_from_its_initial_state") {
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

TEST_CASE("a_resume_after_any_step_is_bit_exact_with_windows_and_skipped_updates") {
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
