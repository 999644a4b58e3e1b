// Trains a small convolutional network on Fashion-MNIST. You can kill it at any moment and run the same command again.
// The program is the same for one process, one GPU, or many ranks (holdfast launch --nproc 4 fashion_mnist).
#include <holdfast/holdfast.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <string>

#include "../ranges.h"
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

// The fraction of the test images that the net classifies correctly, over all ranks.
template <class TestLoader>
double accuracy(holdfast::Session& session, Net& net, TestLoader& loader) {
  const torch::NoGradGuard no_grad;
  net->eval();
  std::int64_t correct = 0, total = 0;
  for (auto& batch : session.evaluate(loader)) {  // the images are divided over the ranks; every image is seen once
    const auto guess = net->forward(batch.data.to(session.device())).argmax(1).cpu();
    correct += guess.eq(batch.target).sum().template item<std::int64_t>();
    total += batch.target.size(0);
  }
  net->train();
  return static_cast<double>(session.sum(correct)) / static_cast<double>(session.sum(total));
}

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "fashion_mnist", .seed = 42, .every = "200,1epoch"});

  std::string data = "/usr/share/datasets/fashion-mnist", precision = "auto";
  std::uint64_t epochs = 3, accumulate = 1;
  std::int64_t batch_size = 64;
  double learning_rate = 4e-3;
  int workers = 0;
  CLI::App app(
      "Trains a small convolutional network on Fashion-MNIST. Kill it at any moment and run the same command "
      "again. Holdfast's own options: --holdfast.help.");
  app.add_option("--data", data, "Folder with the four .gz files")->capture_default_str();
  app.add_option("--epochs", epochs, "Number of epochs")->capture_default_str()->check(kPositive);
  app.add_option("--batch-size", batch_size, "Images per step, over all ranks")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--accumulate", accumulate, "Steps per update of the parameters")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--precision", precision, "auto (by the device), fp32, bf16 or fp16")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp16"}));
  app.add_option("--learning-rate", learning_rate, "Highest learning rate of AdamW")
      ->capture_default_str()
      ->check(kPositive);
  app.add_option("--workers", workers, "Threads that read images in advance")
      ->capture_default_str()
      ->check(kNotNegative);
  CLI11_PARSE(app, argc, argv);

  holdfast::Loader train(FashionMnist(data, "train").augment().map(Stack<>()),
                         {.batch_size = batch_size, .workers = workers});
  holdfast::Loader test(FashionMnist(data, "test").map(Stack<>()), {.batch_size = 500, .shuffle = false});

  const torch::Device device = session.device();
  Net net;
  net->to(device);
  holdfast::FusedAdamW optimizer(net->parameters(), torch::optim::AdamWOptions(learning_rate).weight_decay(1e-2));
  const std::uint64_t updates = epochs * ((train.batches_per_epoch() + accumulate - 1) / accumulate);
  auto pipeline =
      session.pipeline(net, optimizer,
                       {
                           holdfast::Ddp(),
                           holdfast::Amp(holdfast::parse_precision(precision)),
                           holdfast::Accumulate(accumulate),
                           holdfast::LrSchedule::warmup_cosine(std::min(updates, updates / 20 + 1), updates),
                       });
  double best = 0;
  session.track("best", best);

  for (auto& epoch : session.epochs(train, epochs)) {
    for (auto& batch : epoch) {
      pipeline.step(batch,
                    [&] { return F::cross_entropy(net->forward(batch.data.to(device)), batch.target.to(device)); });
      session.log({{"loss", pipeline.loss()}, {"lr", pipeline.lr()}});
    }
    if (session.stopping()) break;
    const double test_accuracy = accuracy(session, net, test);
    best = std::max(best, test_accuracy);
    session.log({{"test_accuracy", test_accuracy}});
    session.print("epoch {}: test accuracy {:.2f} %\n", epoch.number() + 1, 100 * test_accuracy);
  }
  if (!session.stopping()) session.print("best test accuracy {:.2f} %\n", 100 * best);
  return session.finish();
}
