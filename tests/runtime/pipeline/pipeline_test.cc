// What a pipeline's stages compute: the gradients of the whole batch, however it is spread over ranks and windows, and
// nothing else.
#include "holdfast/runtime/pipeline/pipeline.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>

#include "holdfast/holdfast.h"
#include "ranks.h"
#include "tracked_run.h"

namespace {

using namespace holdfast;
namespace F = torch::nn::functional;

constexpr std::int64_t kInputs = 24, kHidden = 48, kClasses = 8;

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) {
    return last->forward(torch::tanh(middle->forward(torch::gelu(first->forward(x)))));
  }
  torch::nn::Linear first{register_module("first", torch::nn::Linear(kInputs, kHidden))};
  torch::nn::Linear middle{register_module("middle", torch::nn::Linear(kHidden, kHidden))};
  torch::nn::Linear last{register_module("last", torch::nn::Linear(kHidden, kClasses))};
};
TORCH_MODULE(Net);

// Equal on every rank and in every call.
Net make_net() {
  Net net;
  const torch::NoGradGuard no_grad;
  double phase = 0;
  for (auto& parameter : net->parameters()) {
    parameter.copy_(torch::sin(torch::arange(parameter.numel(), torch::kDouble) * 0.37 + ++phase).view_as(parameter) *
                    0.25);
  }
  return net;
}

class Points : public torch::data::datasets::Dataset<Points> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    return {torch::sin(torch::arange(kInputs, torch::kDouble) * (0.1 + 0.05 * static_cast<double>(index)))
                .to(torch::kFloat),
            torch::tensor(static_cast<std::int64_t>(index * 5 % kClasses))};
  }
  std::optional<std::size_t> size() const override {
    return 45;
  }  // two windows of 16 and one of 13: batches of 4, 4, 4, 1
};

auto points() { return Points().map(torch::data::transforms::Stack<>()); }

torch::Tensor flat(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> parts;
  for (const auto& tensor : tensors) parts.push_back(tensor.detach().cpu().to(torch::kDouble).reshape({-1}));
  return torch::cat(parts);
}

// Keeps the gradients that the optimizer will see.
class Recorder : public Stage {
 public:
  std::string name() const override { return "recorder"; }
  void before_update(Update& update) override { gradients.push_back(flat(update.gradients)); }
  std::vector<torch::Tensor> gradients;
};

struct Result {
  std::vector<torch::Tensor> gradients;
  torch::Tensor weights;
  torch::Tensor averages;
  std::vector<double> rates;
};

StageContext context_of(Group& group, Net& net, torch::optim::Optimizer& optimizer) {
  StageContext context{"test", group, group.device(), *net, optimizer, {}, "", [](const std::string&) {}};
  for (const auto& parameter : net->named_parameters())
    context.parameters.push_back({parameter.key(), parameter.value()});
  return context;
}

struct Plan {
  Precision precision = Precision::fp32;
  std::uint64_t windows = 1;  // micro-batches in a window
  bool clip = false;
  Compress compress = Compress::none;
};

// Two epochs in windows of 16 samples.
Result train(Group& group, const Plan& plan) {
  Net net = make_net();
  net->to(group.device());
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.2).momentum(0.9));
  auto recorder = std::make_shared<Recorder>();
  std::vector<AnyStage> stages{Ddp({.bucket_bytes = 4096, .first_bucket_bytes = 512, .compress = plan.compress}),
                               Amp(plan.precision, {.initial_scale = 1024})};
  if (plan.windows > 1) stages.push_back(Accumulate(plan.windows));
  if (plan.clip) stages.push_back(ClipGradNorm(0.05));
  stages.push_back(recorder);
  stages.push_back(LrSchedule::warmup_cosine(2, 6));
  stages.push_back(Ema(0.8));
  Pipeline pipeline(context_of(group, net, optimizer), stages);
  Loader loader(points(), {.batch_size = static_cast<std::int64_t>(16 / plan.windows), .seed = 3});
  loader.shard(group.rank(), group.world_size());
  Result result;
  std::uint64_t number = 0;
  for (int epoch = 0; epoch < 2; ++epoch) {
    while (auto batch = loader.next()) {
      const StepInfo step(step_facts(loader, ++number));
      const auto outcome = pipeline.step(step, [&] {
        return F::cross_entropy(net->forward(batch->data.to(group.device())), batch->target.to(group.device()));
      });
      if (outcome.window_ended()) result.rates.push_back(pipeline.lr());
    }
  }
  result.gradients = recorder->gradients;
  result.weights = flat(net->parameters());
  const auto averages = pipeline.stage<Ema>().swap_in();
  result.averages = flat(net->parameters());
  return result;
}

// The gradient of the first window in double precision, by autograd alone.
torch::Tensor exact_gradient(bool clip) {
  Net net = make_net();
  net->to(torch::kDouble);
  Loader loader(points(), {.batch_size = 16, .seed = 3});
  const auto batch = *loader.next();
  F::cross_entropy(net->forward(batch.data.to(torch::kDouble)), batch.target).backward();
  std::vector<torch::Tensor> gradients;
  for (const auto& parameter : net->parameters()) gradients.push_back(parameter.grad());
  const auto gradient = flat(gradients);
  const double norm = gradient.norm().item<double>();
  return clip && norm > 0.05 ? gradient * (0.05 / norm) : gradient;
}

double distance(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).norm().item<double>(); }

void gradients_are_those_of_the_whole_batch(int count, c10::DeviceType device) {
  const auto ended = ranks::run(
      count,
      [](Group& group) -> std::string {
        Group alone(RankEnvironment{}, group.device());
        std::string wrong;
        double largest = 0;
        for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp16}) {
          for (const bool clip : {false, true}) {
            const auto exact = exact_gradient(clip);
            const Result one = train(alone, {precision, 1, clip});
            const double error_of_one = distance(one.gradients[0], exact);
            for (const std::uint64_t windows : {1, 4}) {
              const Result mine = train(group, {precision, windows, clip});
              const auto name =
                  fmt::format("{}, windows of {}{}", to_string(precision), windows, clip ? ", clipped" : "");
              if (mine.gradients.size() != 6 || one.gradients.size() != 6) wrong += name + ": updates; ";
              const double ratio = distance(mine.gradients[0], exact) / error_of_one;
              largest = std::max(largest, ratio);
              if (!(ratio <= 2)) wrong += fmt::format("{}: gradient error {:.2f} times one rank's; ", name, ratio);
              // Whole runs, uneven tails included, differ by rounding errors that depend on the precision.
              const double apart = precision == Precision::fp32 ? 1e-5 : 0.02;
              for (std::size_t i = 0; i < 6; ++i) {
                const double size = one.gradients[i].norm().item<double>();
                if (distance(mine.gradients[i], one.gradients[i]) > 3 * apart * size) {
                  wrong += fmt::format("{}: update {} is {:.3g} off; ", name, i,
                                       distance(mine.gradients[i], one.gradients[i]) / size);
                }
              }
              if (distance(mine.weights, one.weights) > apart * one.weights.norm().item<double>())
                wrong += name + ": weights; ";
              if (distance(mine.averages, one.averages) > apart * one.averages.norm().item<double>()) {
                wrong += name + ": averages; ";
              }
              if (mine.rates != one.rates) wrong += name + ": rates; ";
              if (mine.weights.equal(mine.averages)) wrong += name + ": averages are the weights; ";
            }
          }
        }
        return wrong.empty() ? fmt::format("right, at most {:.2f}", largest) : wrong;
      },
      std::chrono::seconds(120), device);
  for (const auto& rank : ended) {
    INFO(count << " ranks: " << rank.text);
    CHECK(rank.code == 0);
    CHECK(rank.text.starts_with("right"));
  }
  std::cout << "gradient truth on " << device << ": ranks=" << count << " combinations=12, " << ended[0].text
            << " times one rank's error\n";
}

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

TEST_CASE("gradients_are_those_of_the_whole_batch_however_it_is_spread", "[full]") {
  for (const int count : {1, 2, 4}) gradients_are_those_of_the_whole_batch(count, c10::kCPU);
}

TEST_CASE("gradients_on_gpus_are_those_of_the_whole_batch_however_it_is_spread", "[gpu]") {
  const bool two = ranks::are_on_two_gpus();
  gradients_are_those_of_the_whole_batch(1, c10::kCUDA);
  if (two) gradients_are_those_of_the_whole_batch(2, c10::kCUDA);
}

TEST_CASE("compressed_gradients_are_near_the_exact_ones", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    const auto exact = train(group, {}).gradients[0];
    const auto bf16 = train(group, {.compress = Compress::bf16}).gradients[0];
    const auto fp16 = train(group, {.compress = Compress::fp16}).gradients[0];
    const double size = exact.norm().item<double>();
    const double a = distance(bf16, exact) / size, b = distance(fp16, exact) / size;
    return a > 1e-5 && a < 1e-2 && b > 1e-6 && b < 2e-3 ? "right" : fmt::format("bf16 {} fp16 {}", a, b);
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("gradients_leave_only_at_a_windows_end") {
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

TEST_CASE("rank_0s_buffers_reach_every_rank_whatever_their_dtype", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    struct Buffers : torch::nn::Module {
      torch::Tensor w = register_parameter("w", torch::ones({2}));
    } net;
    std::vector<torch::Tensor> expected;
    for (const auto dtype : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kBool, at::kByte, at::kShort,
                             at::kInt, at::kLong, at::kComplexFloat, at::kComplexDouble}) {
      expected.push_back((torch::arange(6) % (dtype == at::kBool ? 2 : 6)).view({2, 3}).to(dtype));
      const auto mine = group.is_main() ? expected.back().clone() : torch::zeros_like(expected.back());
      net.register_buffer(fmt::format("dtype{}", expected.size()), mine);
    }
    expected.push_back(torch::arange(6.).view({2, 3}).t());  // in another memory order, of one element, of none
    net.register_buffer("turned", (torch::arange(6.).view({2, 3}) * (1 - group.rank())).t());
    expected.push_back(torch::tensor(3));
    net.register_buffer("count", torch::tensor(3 - group.rank()));
    expected.push_back(torch::empty({0, 2}));
    net.register_buffer("none", expected.back());
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(1));
    Pipeline pipeline(StageContext{"test", group, c10::kCPU, net, optimizer, {{"w", net.w}}}, {Ddp(), Accumulate(2)});
    StepFacts facts;
    facts.steps_left = 10;
    const auto step = [&] { pipeline.step(StepInfo(facts), [&] { return net.w.sum(); }); };
    step();
    const auto buffers = net.buffers();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (!buffers[i].equal(expected[i])) return fmt::format("wrong: {}", c10::toString(expected[i].scalar_type()));
    }
    // Buffers are exchanged only at a window's start, and only in training.
    auto count = net.named_buffers()["count"];
    const auto after_step = [&] {
      step();
      return count.item<int>();
    };
    count.fill_(group.rank());
    if (after_step() != group.rank()) return "a window's second batch";
    if (after_step() != 0) return "a window's first batch";
    step();
    count.fill_(group.rank());
    net.eval();
    if (after_step() != group.rank()) return "evaluation";
    return "right";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("a_resumed_run_averages_in_the_same_buckets_and_others_are_said", "[full]") {
  // With three ranks the last bits of a sum depend on the gradient's place in its bucket.
  const auto ended = ranks::run(3, [](Group& group) -> std::string {
    struct Crossed : torch::nn::Module {  // the order of gradients differs from that of the parameters
      std::vector<torch::Tensor> parts;
      Crossed() {
        for (int i = 0; i < 8; ++i)
          parts.push_back(register_parameter(fmt::format("w{}", i), torch::zeros({50 + 7 * i})));
      }
      torch::Tensor forward(int step, int rank) {
        torch::Tensor x = torch::ones({1});
        for (const int i : {3, 6, 0, 5, 1, 7, 2, 4}) {
          const auto n = torch::arange(parts[static_cast<std::size_t>(i)].numel());
          const auto wave = torch::sin(n * 1.3 + 3 * step + 7 * rank);
          x = x + torch::tanh(0.1 * (parts[static_cast<std::size_t>(i)] * wave).sum());
        }
        return x.sum();
      }
    };
    std::vector<std::string> lines;
    const auto train = [&](bool in_two) {
      Crossed net;
      torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1));
      StageContext context{"test",    group, c10::kCPU, net,
                           optimizer, {},    "",        [&](const auto& line) { lines.push_back(line); }};
      for (const auto& one : net.named_parameters()) context.parameters.push_back({one.key(), one.value()});
      const auto make = [&](std::int64_t bucket_bytes) {
        return std::make_unique<Pipeline>(
            context, std::vector<AnyStage>{Ddp({.bucket_bytes = bucket_bytes, .first_bucket_bytes = 400})});
      };
      auto pipeline = make(1200);
      for (int i = 0; i < 6; ++i) {
        if (in_two && i == 3) {
          State state;
          pipeline->save(state);
          make(2400)->load(state);
          pipeline = make(1200);
          pipeline->load(state);
        }
        pipeline->step(StepInfo(StepFacts()), [&] { return net.forward(i, group.rank()); });
      }
      return flat(net.parameters());
    };
    const auto whole = train(false);
    if (!train(true).equal(whole)) return "other sums";
    if (lines.size() != 1 || lines[0].find("averaged in other buckets") == std::string::npos) return "not said once";
    return "right";
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
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
    const auto length = window_length(4, first);
    const auto samples = window_samples(length, first);
    CHECK(samples == std::min<std::uint64_t>(16, left));
    double sum = 0;
    for (std::uint64_t i = 0; i < length; ++i) {
      StepFacts step;
      step.samples = std::min<std::uint64_t>(4, left);
      const double share = window_share(length, samples, step);
      CHECK(share == Approx(static_cast<double>(step.samples) / static_cast<double>(samples)));
      sum += share;
      left -= step.samples;
      --batches;
    }
    CHECK(sum == Approx(1));
  }
  StepFacts counted;  // a loop that makes its own batches
  counted.steps_left = 1;
  CHECK(window_length(4, counted) == 2);
  CHECK(window_share(2, window_samples(2, counted), counted) == 0.5);
}

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

TEST_CASE("averages_begin_with_the_first_step_that_was_made") { averages_begin_with_the_first_step(c10::kCPU); }

TEST_CASE("averages_on_a_gpu_begin_with_the_first_step_that_was_made", "[gpu]") {
  averages_begin_with_the_first_step(c10::kCUDA);
}

TEST_CASE("averages_change_places_with_parameters_and_back") {
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
    CHECK_THROWS_WITH(ema.swap_in(), Catch::Matchers::Contains("in the parameters' place already"));
    CHECK_THROWS_WITH(pipeline.step(StepInfo(StepFacts()), loss),
                      Catch::Matchers::Contains("end the scope of swap_in()"));
    State state;
    CHECK_THROWS_WITH(pipeline.save(state), Catch::Matchers::Contains("a save is due while"));
    CHECK_THROWS_WITH(ema.load(state), Catch::Matchers::Contains("a checkpoint is loaded while"));
  }
  CHECK(flat(net->parameters()).equal(second));
  pipeline.step(StepInfo(StepFacts()), loss);  // and training continues
  CHECK_FALSE(flat(net->parameters()).equal(second));
}

TEST_CASE("averages_go_on_to_the_bit_also_from_before_their_first_step") {
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

TEST_CASE("the_average_of_a_new_parameter_begins_where_it_does") {
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
    CHECK_THAT(rank.text,
               Catch::Matchers::Contains("rank 1 calls LrSchedule.observe of metric 1.25 at pipeline_test.cc"));
  }
}

TEST_CASE("averages_have_the_places_in_memory_of_their_own") {
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

TEST_CASE("clipping_bounds_norms_and_values") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  for (const double p : {1.0, 2.0, std::numeric_limits<double>::infinity()}) {
    auto before = std::make_shared<Recorder>(), after = std::make_shared<Recorder>();
    class Named : public Recorder {
      std::string name() const override { return "after"; }
    };
    auto named = std::make_shared<Named>();
    Pipeline pipeline(context_of(group, net, optimizer), {before, ClipGradNorm(0.01, p), named});
    pipeline.step(StepInfo(StepFacts()), [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); });
    CHECK(named->gradients[0].norm(p).item<double>() == Approx(0.01).epsilon(1e-4));
    CHECK(pipeline.stage<ClipGradNorm>().norm().item<double>() ==
          Approx(before->gradients[0].norm(p).item<double>()).epsilon(1e-5));
  }
  auto after = std::make_shared<Recorder>();
  Pipeline pipeline(context_of(group, net, optimizer), {ClipGradValue(1e-3), after});
  pipeline.step(StepInfo(StepFacts()), [&] { return net->forward(torch::ones({2, kInputs})).square().mean(); });
  CHECK(after->gradients[0].abs().max().item<double>() == Approx(1e-3));
}

TEST_CASE("a_step_that_lacks_a_part_is_refused_and_says_which") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  const auto says = [](const std::string& words) { return Catch::Matchers::Contains(words); };
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
  CHECK_THROWS_WITH(no_gradient.step(step, [&] { return loss_of().detach(); }), says("leads to no parameter"));
  CHECK_THROWS_WITH(no_gradient.step(step, [&] { return torch::ones({2}, torch::requires_grad()); }),
                    says("one number"));

  // A program may leave out the update of a window that it rejects, and may update once a window.
  auto picky = made();
  for (int i = 0; i < 2; ++i) picky.step(step, loss_of);
  for (int i = 0; i < 4; ++i) picky.backward(picky.forward(step, loss_of));
  CHECK(picky.update().window_ended());
  CHECK(picky.updates() == 2);
}

TEST_CASE("stages_may_come_and_go_between_two_starts") {
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
  CHECK(said == std::vector<std::string>{"stage ema of the checkpoint is not in the pipeline: its state is left out, "
                                         "and what it set, such as a learning rate, stays"});
  said.clear();
  auto more = made({Amp(Precision::fp16), Accumulate(1), ClipGradValue(1), LrSchedule::constant(), Ema(0.9)});
  more.load(state);
  const std::string is_new = " of the pipeline is not in the checkpoint: it begins from scratch";
  CHECK(said == std::vector<std::string>{"stage amp" + is_new, "stage clip_grad_value" + is_new,
                                         "stage lr_schedule" + is_new,
                                         "stage clip_grad_norm of the checkpoint is not in the pipeline: its state is "
                                         "left out, and what it set, such as a learning rate, stays"});
  CHECK(more.updates() == 1);

  // A checkpoint that does not list the stages, as from an older Holdfast: the stages are those with saved state.
  auto values = state.values();
  REQUIRE(values.erase("stages") == 1);
  const State older = State::of_saved(state.tensors(), std::move(values), {});
  said.clear();
  made({Accumulate(1), ClipGradNorm(1), Ema(0.9)}).load(older);
  CHECK(said.empty());
  made({Amp(Precision::fp16), Accumulate(1)}).load(older);
  CHECK(said == std::vector<std::string>{"stage amp" + is_new,
                                         "stage ema of the checkpoint is not in the pipeline: its state is left out, "
                                         "and what it set, such as a learning rate, stays"});

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
  CHECK(said == std::vector<std::string>{"stage ema" + is_new});
}

TEST_CASE("an_order_that_cannot_work_is_refused_with_the_reason") {
  Group group(RankEnvironment{}, c10::kCPU);
  Net net = make_net();
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  const auto made = [&](std::vector<AnyStage> stages) {
    Pipeline(context_of(group, net, optimizer), std::move(stages));
  };
  const auto says = [](const std::string& words) { return Catch::Matchers::Contains(words); };
  CHECK_THROWS_WITH(made({ClipGradNorm(1), Amp(Precision::fp16)}),
                    says("amp stands behind clip_grad_norm") && says("gradients must be unscaled"));
  CHECK_THROWS_WITH(made({Amp(), Ddp()}), says("ddp stands behind amp"));
  CHECK_THROWS_WITH(made({ClipGradNorm(1), Accumulate(2)}), says("accumulate stands behind clip_grad_norm"));
  CHECK_THROWS_WITH(made({Ema(0.9), LrSchedule::constant()}), says("lr_schedule stands behind ema"));
  CHECK_THROWS_WITH(made({Accumulate(2), Accumulate(3)}), says("two stages called accumulate"));
  CHECK_THROWS_WITH(Accumulate(0), says("at least one batch"));
  CHECK_THROWS_WITH(Ema(1.0), says("below 1"));
  CHECK_THROWS_WITH(ClipGradNorm(-1), says("above 0"));
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.backoff_factor = 2}), says("backoff_factor"));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.initial_scale = kInfinity}), says("initial_scale"));
  CHECK_THROWS_WITH(Amp(Precision::fp16, {.growth_factor = kInfinity}), says("growth_factor"));
  const auto average = std::make_shared<Ema>(0.9);
  made({average});
  CHECK_THROWS_WITH(made({average}), says("stage ema is in another pipeline already"));
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

TEST_CASE("a_parameter_that_is_trained_but_was_not_there_is_refused") {
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
                    Catch::Matchers::Contains("parameter first.weight has a gradient now"));
  CHECK(flat(net->parameters()).equal(weights));
}

TEST_CASE("parameters_may_be_frozen_and_unfrozen_once_the_pipeline_is_made", "[full]") {
  const auto ended = ranks::run(2, [](Group& group) -> std::string {
    const auto train = [](Group& ranks_of) {
      Net net = make_net();
      torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
      Pipeline pipeline(context_of(ranks_of, net, optimizer), {Ddp({.find_unused = true})});
      Loader loader(points(), {.batch_size = 8, .seed = 3});
      loader.shard(ranks_of.rank(), ranks_of.world_size());
      const auto weight = net->first->weight.clone();
      for (int i = 0; i < 4; ++i) {
        for (auto& parameter : net->first->parameters()) parameter.requires_grad_(i % 3 == 2);
        const auto batch = *loader.next();
        pipeline.step(StepInfo(step_facts(loader, 1)),
                      [&] { return F::cross_entropy(net->forward(batch.data), batch.target); });
        if (net->first->weight.equal(weight) != (i < 2))
          throw std::runtime_error("frozen ones moved, or others did not");
      }
      return flat(net->parameters());
    };
    Group alone(RankEnvironment{}, c10::kCPU);
    const double apart = distance(train(group), train(alone));
    return apart < 1e-6 ? "right" : fmt::format("{} apart", apart);
  });
  for (const auto& rank : ended) CHECK(rank.text == "right");
}

TEST_CASE("a_group_that_is_added_follows_the_schedule_from_its_own_rate") {
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

TEST_CASE("a_run_that_skips_every_step_says_so_once") {
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
    CHECK_THAT(said[0], Catch::Matchers::Contains("the last 100 updates were all skipped"));
  }
}

TEST_CASE("gradients_that_a_stage_cannot_take_are_refused_with_the_remedy") {
  Group group(RankEnvironment{}, c10::kCPU);
  torch::nn::Embedding words(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  torch::optim::SGD optimizer(words->parameters(), torch::optim::SGDOptions(0.1));
  for (const AnyStage& stage : std::vector<AnyStage>{Amp(Precision::fp16), ClipGradNorm(1), ClipGradValue(1)}) {
    Pipeline pipeline(StageContext{"test", group, c10::kCPU, *words, optimizer, {{"weight", words->weight}}}, {stage});
    CHECK_THROWS_WITH(pipeline.step(StepInfo(StepFacts()),
                                    [&] {
                                      return words->forward(torch::tensor({1, 3})).sum();
                                    }),
                      Catch::Matchers::Contains(stage.get()->name() + " takes dense gradients") &&
                          Catch::Matchers::Contains("without sparse(true)"));
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
  for (const auto& rank : ended) CHECK_THAT(rank.text, Catch::Matchers::Contains("Ddp: the embedding words gives"));

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

TEST_CASE("bucket_layouts_hold_every_parameter_once_last_ones_first") {
  std::vector<torch::Tensor> parameters;
  for (const int size : {10, 1000, 3, 500, 20}) parameters.push_back(torch::zeros({size}));
  parameters.push_back(torch::zeros({4}, torch::kDouble));
  const auto layout = bucket_layout(parameters, 64, 3000);
  CHECK(layout == std::vector<std::vector<std::size_t>>{{4}, {3, 2, 1}, {0}, {5}});
}
