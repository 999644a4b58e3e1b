// A generative adversarial network that learns to draw points from eight spots on a circle: two networks, two
// optimizers, two pipelines, one session. Prints how many of the eight spots the generator reaches.
// Source: Goodfellow et al., "Generative Adversarial Nets", NIPS 2014; the ring is that of Metz et al., "Unrolled
// Generative Adversarial Networks", ICLR 2017.
#include <ATen/CPUGeneratorImpl.h>
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../ranges.h"

namespace F = torch::nn::functional;

constexpr std::int64_t kSpots = 8, kNoise = 8;
constexpr double kRadius = 2, kDeviation = 0.1;

torch::Tensor centres() {
  const auto angles = torch::arange(kSpots, torch::kFloat) * (2 * M_PI / static_cast<double>(kSpots));
  return torch::stack({torch::cos(angles), torch::sin(angles)}, 1) * kRadius;
}

torch::Tensor draw_real(std::int64_t count) {
  return centres().index_select(0, torch::randint(kSpots, {count}, torch::kLong)) +
         kDeviation * torch::randn({count, 2});
}

torch::nn::Sequential network(std::int64_t inputs, std::int64_t outputs, std::int64_t width) {
  using torch::nn::Linear;
  const torch::nn::LeakyReLU bend(torch::nn::LeakyReLUOptions().negative_slope(0.2));
  return torch::nn::Sequential(Linear(inputs, width), bend, Linear(width, width), bend, Linear(width, outputs));
}

// The loss of `scores` when all points are real (1) or drawn by the generator (0).
torch::Tensor judged(const torch::Tensor& scores, double truth) {
  return F::binary_cross_entropy_with_logits(scores, torch::full_like(scores, truth));
}

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "gan", .seed = 7, .every = "500"});

  std::uint64_t steps = 4000;
  std::int64_t batch_size = 256, width = 128;
  double learning_rate = 1e-3;
  CLI::App app(
      "Two networks learn against each other to draw points from eight spots on a circle. Kill it at any moment and "
      "run the same command again. Holdfast's own options: --holdfast.help.");
  app.add_option("--steps", steps, "Number of steps")->capture_default_str()->check(kPositive);
  app.add_option("--batch-size", batch_size, "Points per step and network, over all ranks")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--width", width, "Width of the hidden layers")->capture_default_str()->check(kPositive);
  app.add_option("--learning-rate", learning_rate, "Learning rate of Adam for both networks")
      ->capture_default_str()
      ->check(kPositive);
  CLI11_PARSE(app, argc, argv);

  const torch::Device device = session.device();
  auto draws = network(kNoise, 2, width), judges = network(2, 1, width);
  draws->to(device);
  judges->to(device);
  const auto options = torch::optim::AdamOptions(learning_rate).betas({0.5, 0.9});
  holdfast::FusedAdam draws_optimizer(draws->parameters(), options), judges_optimizer(judges->parameters(), options);
  auto generator = session.pipeline("generator", draws, draws_optimizer,
                                    {holdfast::Ddp(), holdfast::LrSchedule::cosine(steps), holdfast::Ema(0.99)});
  auto discriminator = session.pipeline("discriminator", judges, judges_optimizer,
                                        {holdfast::Ddp(), holdfast::LrSchedule::cosine(steps)});

  // Each rank draws its own points from LibTorch's default generator, which the session saves.
  const auto points = std::max<std::int64_t>(1, batch_size / session.world_size());
  const auto noise = [&] { return torch::randn({points, kNoise}).to(device); };
  for (auto& step : session.steps({.count = steps})) {
    discriminator.step(step, [&] {
      const auto drawn = draws->forward(noise()).detach();
      return judged(judges->forward(draw_real(points).to(device)), 1) + judged(judges->forward(drawn), 0);
    });
    generator.step(step, [&] { return judged(judges->forward(draws->forward(noise())), 1); });
    if (step.number() % 100 == 0) {
      session.log({{"generator", generator.loss()}, {"discriminator", discriminator.loss()}});
    }
  }

  if (!session.stopping()) {
    const torch::NoGradGuard no_grad;
    const auto averaged = generator.stage<holdfast::Ema>().swap_in();
    const std::int64_t count = 4000;
    const auto same_noise = torch::randn({count, kNoise}, at::detail::createCPUGenerator(1));
    const auto drawn = draws->forward(same_noise.to(device)).cpu();
    const auto [distance, nearest] = torch::cdist(drawn, centres()).min(1);
    const auto on_a_spot = distance < 4 * kDeviation;
    // A spot counts as reached if it gets a quarter of its fair share.
    const auto reached = (torch::bincount(nearest.masked_select(on_a_spot), {}, kSpots) >= count / kSpots / 4).sum();
    session.print("the generator reaches {} of {} spots; {:.1f} % of its points lie on one\n",
                  reached.item<std::int64_t>(), kSpots, 100 * on_a_spot.to(torch::kDouble).mean().item<double>());
  }
  return session.finish();
}
