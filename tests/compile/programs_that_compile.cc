// compiles
#include "program.h"

// Common uses, and uses that were once rejected by mistake.
int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  double weights[3] = {1, 2, 3};
  std::deque<double> last;
  enum class Phase { warm_up, main } phase = Phase::warm_up;
  std::optional<double> best;
  std::normal_distribution<float> normal;
  std::atomic<int> counter{0};
  std::vector<torch::Tensor> tensors(2);
  torch::nn::Sequential sequential(torch::nn::Linear(2, 2));
  torch::nn::Linear net(2, 2), other(2, 2);
  std::unique_ptr<torch::optim::Optimizer> optimizer = std::make_unique<torch::optim::SGD>(net->parameters(), 0.1);
  std::unique_ptr<torch::optim::Optimizer> second = std::make_unique<torch::optim::SGD>(other->parameters(), 0.1);
  session.track("weights", weights).track("last", last).track("phase", phase).track("best", best);
  session.track("normal", normal).track("counter", counter).track("tensors", tensors);
  session.track("sequential", sequential).track("net", *net).track("other", other.ptr());
  session.track("optimizer", optimizer).track("second", *second);
  session.track("made_here", std::make_shared<torch::nn::LinearImpl>(2, 2));

  auto dataset = Samples().map(torch::data::transforms::Stack<>());
  holdfast::Loader loader(dataset, {.batch_size = 4});
  const std::size_t batch_size = 4;
  holdfast::Loader sized(dataset, {.batch_size = batch_size});
  const holdfast::LoaderOptions options;
  holdfast::Loader with_options(dataset, options);
  const int epochs = 2;
  const std::int64_t count = 3;
  for (auto& batch : session.steps(loader, {.epochs = epochs})) (void)batch.data;
  for (auto& epoch : session.epochs(sized, {.epochs = 3})) {
    for (auto& batch : epoch) (void)batch.target;
  }
  for (auto step : session.steps({.count = count})) (void)step.number();
  for (const auto& step : session.steps({.count = 3})) (void)step.number();
  auto pipeline = session.pipeline(net, *optimizer, {});
  return session.finish();
}
