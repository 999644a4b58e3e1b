// The gradients, weights and averages are those of the whole batch, however it is spread over ranks and windows.
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include "holdfast/holdfast.h"
#include "pipeline/small_net.h"
#include "ranks.h"

namespace {

using namespace holdfast;
using namespace small_net;

namespace F = torch::nn::functional;

struct Result {
  std::vector<torch::Tensor> gradients;
  torch::Tensor weights;
  torch::Tensor averages;
  std::vector<double> rates;
};

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
      const StepInfo step(holdfast::detail::step_facts(loader, ++number));
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
