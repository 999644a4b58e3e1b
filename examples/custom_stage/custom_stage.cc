// A user-defined stage in a pipeline: noise on the gradients that fades during training (Neelakantan et al., "Adding
// Gradient Noise Improves Learning for Very Deep Networks", arXiv:1511.06807). When the run resumes, its random numbers
// continue where they were.
#include <ATen/CPUGeneratorImpl.h>
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "../ranges.h"

namespace F = torch::nn::functional;
using torch::data::transforms::Stack;

class GradientNoise : public holdfast::Stage {
 public:
  // With the same seed, all ranks add the same noise to the average, so their parameters stay equal.
  GradientNoise(double scale, std::uint64_t seed) : scale_(scale), generator_(at::detail::createCPUGenerator(seed)) {}

  std::string name() const override { return "gradient_noise"; }
  Place place() const override { return Place::gradients; }  // after Ddp and Amp, before LrSchedule

  void before_update(holdfast::Update& update) override {
    const double deviation = scale_ / std::pow(1.0 + static_cast<double>(update.number), 0.55 / 2);
    for (auto& gradient : update.gradients) {
      gradient.add_(torch::randn(gradient.sizes(), generator_).to(gradient.device()), deviation);
    }
  }

  void save(holdfast::State& state) const override { state.put("generator", generator_.get_state()); }
  void load(const holdfast::State& state) override { generator_.set_state(state.get<torch::Tensor>("generator")); }

 private:
  double scale_;
  torch::Generator generator_;
};

// A wave to learn: x in [-1, 1], sin(6x).
class Wave : public torch::data::datasets::Dataset<Wave> {
 public:
  torch::data::Example<> get(std::size_t index) override {
    const double x = 2.0 * static_cast<double>(index) / static_cast<double>(kPoints - 1) - 1;
    return {torch::tensor({x}, torch::kFloat), torch::tensor({std::sin(6 * x)}, torch::kFloat)};
  }
  std::optional<std::size_t> size() const override { return kPoints; }

 private:
  static constexpr std::size_t kPoints = 1000;
};

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "custom_stage", .seed = 3, .every = "500"});

  std::uint64_t epochs = 200;
  double noise = 0.01;
  CLI::App app(
      "Fits a curve with noise on the gradients, which a user-defined stage adds. Kill it at any moment and run the "
      "same "
      "command again. Holdfast's own options: --holdfast.help.");
  app.add_option("--epochs", epochs, "Number of epochs")->capture_default_str()->check(kPositive);
  app.add_option("--noise", noise, "Standard deviation of the noise at the first update")
      ->capture_default_str()
      ->check(kNotNegative);
  CLI11_PARSE(app, argc, argv);

  const torch::Device device = session.device();
  torch::nn::Sequential net(torch::nn::Linear(1, 64), torch::nn::Tanh(), torch::nn::Linear(64, 64), torch::nn::Tanh(),
                            torch::nn::Linear(64, 1));
  net->to(device);
  holdfast::FusedAdam optimizer(net->parameters(), torch::optim::AdamOptions(3e-3));
  holdfast::Loader loader(Wave().map(Stack<>()), {.batch_size = 50});
  auto pipeline = session.pipeline(net, optimizer,
                                   {
                                       holdfast::Ddp(),
                                       GradientNoise(noise, session.seed()),
                                       holdfast::LrSchedule::cosine(epochs * loader.batches_per_epoch()),
                                   });
  for (auto& batch : session.steps(loader, {.epochs = epochs})) {
    pipeline.step(batch, [&] { return F::mse_loss(net->forward(batch.data.to(device)), batch.target.to(device)); });
    session.log({{"loss", pipeline.loss()}});
  }

  const torch::NoGradGuard no_grad;
  double squares = 0;
  for (auto& part : session.evaluate(loader)) {
    squares += (net->forward(part.data.to(device)).cpu() - part.target).square().sum().item<double>();
  }
  session.print("root of the mean squared error {:.6f}\n",
                std::sqrt(session.sum(squares) / static_cast<double>(loader.size())));
  return session.finish();
}
