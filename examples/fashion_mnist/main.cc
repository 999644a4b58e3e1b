// Trains a small convolutional network on Fashion-MNIST. Kill it at any moment and run the same command again.
#include <fmt/format.h>
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "fashion_mnist.h"

namespace F = torch::nn::functional;
using torch::data::transforms::Stack;

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(torch::Tensor x) {
    x = torch::max_pool2d(torch::relu(norm1->forward(conv1->forward(x))), 2);
    x = torch::max_pool2d(torch::relu(norm2->forward(conv2->forward(x))), 2);
    return out->forward(dropout->forward(torch::relu(hidden->forward(x.flatten(1)))));
  }
  torch::nn::Conv2d conv1{register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 16, 3).padding(1)))};
  torch::nn::BatchNorm2d norm1{register_module("norm1", torch::nn::BatchNorm2d(16))};
  torch::nn::Conv2d conv2{register_module("conv2", torch::nn::Conv2d(torch::nn::Conv2dOptions(16, 32, 3).padding(1)))};
  torch::nn::BatchNorm2d norm2{register_module("norm2", torch::nn::BatchNorm2d(32))};
  torch::nn::Linear hidden{register_module("hidden", torch::nn::Linear(32 * 7 * 7, 64))};
  torch::nn::Dropout dropout{register_module("dropout", torch::nn::Dropout(0.25))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(64, 10))};
};
TORCH_MODULE(Net);

template <class TestLoader>
double accuracy(Net& net, TestLoader& loader, torch::Device device) {
  torch::NoGradGuard no_grad;
  net->eval();
  std::int64_t correct = 0, total = 0;
  while (auto batch = loader.next()) {
    const auto guess = net->forward(batch->data.to(device)).argmax(1);
    correct += guess.eq(batch->target.to(device)).sum().template item<std::int64_t>();
    total += batch->target.size(0);
  }
  net->train();
  return static_cast<double>(correct) / static_cast<double>(total);
}

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "fashion_mnist", .seed = 42, .every = "200,1epoch"});

  std::string data = "/usr/share/datasets/fashion-mnist";
  std::uint64_t epochs = 3;
  std::int64_t batch_size = 64;
  double learning_rate = 2e-3;
  int workers = 0;
  CLI::App app(
      "Trains a small convolutional network on Fashion-MNIST. Kill it at any moment and run the same command "
      "again. Holdfast's own options: --holdfast.help.");
  app.add_option("--data", data, "Folder of the four .gz files")->capture_default_str();
  app.add_option("--epochs", epochs, "How often each image is seen")->capture_default_str();
  app.add_option("--batch-size", batch_size, "Images per step")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--learning-rate", learning_rate, "Of AdamW at the start")->capture_default_str();
  app.add_option("--workers", workers, "Threads that read images ahead")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const torch::Device device = session.device();
  Net net;
  net->to(device);
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(learning_rate).weight_decay(1e-2));
  torch::optim::StepLR scheduler(optimizer, /*step_size=*/1, /*gamma=*/0.5);
  double best = 0;

  holdfast::Loader train(FashionMnist(data, "train").augment().map(Stack<>()),
                         {.batch_size = batch_size, .workers = workers});
  holdfast::Loader test(FashionMnist(data, "test").map(Stack<>()), {.batch_size = 500, .shuffle = false});
  session.track("net", net).track("optimizer", optimizer).track("scheduler", scheduler).track("best", best);

  for (auto& epoch : session.epochs(train, epochs)) {
    std::int64_t correct = 0, total = 0;
    for (auto& batch : epoch) {
      const auto target = batch.target.to(device);
      optimizer.zero_grad();
      const auto output = net->forward(batch.data.to(device));
      const auto loss = F::cross_entropy(output, target);
      loss.backward();
      optimizer.step();
      session.log({{"loss", loss.item<float>()}});
      correct += output.argmax(1).eq(target).sum().item<std::int64_t>();
      total += target.size(0);
    }
    if (session.stopping()) break;
    const double test_accuracy = accuracy(net, test, device);
    best = std::max(best, test_accuracy);
    scheduler.step();
    session.log({{"test_accuracy", test_accuracy}});
    session.print("epoch {}: training accuracy {:.2f} %, test accuracy {:.2f} %\n", epoch.number() + 1,
                  100.0 * static_cast<double>(correct) / static_cast<double>(std::max<std::int64_t>(total, 1)),
                  100 * test_accuracy);
  }
  session.print("best test accuracy {:.2f} %\n", 100 * best);
  return session.finish();
}
