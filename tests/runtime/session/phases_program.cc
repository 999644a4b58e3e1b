// A training program that says on standard output in which phase it is, for tests that stop it there: in its set-up,
// forward, backward, inside an accumulation window, in its evaluation. Its state has --megabytes.
#include <torch/autograd.h>
#include <torch/torch.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "holdfast/holdfast.h"

namespace {

using torch::data::transforms::Stack;

// One rank speaks.
bool speaks = true;

void be_in(const char* phase, std::chrono::milliseconds time) {
  if (speaks) {
    std::puts(phase);
    std::fflush(stdout);
  }
  std::this_thread::sleep_for(time);
}

struct SlowBackward : torch::autograd::Function<SlowBackward> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& in) { return in.clone(); }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*,
                                               const torch::autograd::tensor_list& gradients) {
    be_in("backward", std::chrono::milliseconds(60));
    return gradients;
  }
};

struct NetImpl : torch::nn::Module {
  explicit NetImpl(std::int64_t megabytes)
      : large(register_module("large", torch::nn::Linear(1 << 10, megabytes << 8))),
        last(register_module("last", torch::nn::Linear(8, 1))) {}
  torch::Tensor forward(const torch::Tensor& in) {
    be_in("forward", std::chrono::milliseconds(60));
    // A small part of the large layer, because only its bytes matter here.
    const torch::Tensor part = torch::linear(in, large->weight.narrow(0, 0, 8), large->bias.narrow(0, 0, 8));
    return last(torch::tanh(SlowBackward::apply(part)));
  }
  torch::nn::Linear large;
  torch::nn::Linear last;
};
TORCH_MODULE(Net);

struct Samples : torch::data::Dataset<Samples> {
  torch::data::Example<> get(std::size_t index) override {
    return {torch::full({1 << 10}, static_cast<float>(index) / 64), torch::ones({1})};
  }
  std::optional<std::size_t> size() const override { return 64; }
};

}  // namespace

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "phases", .seed = 1, .every = "never"});
  speaks = session.is_main();
  std::int64_t megabytes = 4;
  std::uint64_t epochs = 1000;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string_view(argv[i]) == "--megabytes") megabytes = std::atoll(argv[i + 1]);
    if (std::string_view(argv[i]) == "--epochs") epochs = std::strtoull(argv[i + 1], nullptr, 10);
  }
  be_in("set-up", std::chrono::milliseconds(60));
  Net net(megabytes);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01));
  holdfast::Loader loader(Samples().map(Stack<>()), {.batch_size = 8});
  holdfast::Loader test(Samples().map(Stack<>()), {.batch_size = 8});
  auto pipeline = session.pipeline(net, optimizer, {holdfast::Ddp(), holdfast::Accumulate(4)});
  session.track("loader", loader);
  for (auto& epoch : session.epochs(loader, epochs)) {
    for (auto& batch : epoch) {
      pipeline.step(batch, [&] { return torch::mse_loss(net->forward(batch.data), batch.target); });
      if (batch.number() % 4 != 0) be_in("window", std::chrono::milliseconds(60));
    }
    torch::NoGradGuard no_grad;
    double sum = 0;
    for (auto& batch : session.evaluate(test)) {
      be_in("evaluation", std::chrono::milliseconds(60));
      sum += net->forward(batch.data).sum().item<double>();
    }
    std::printf("epoch %llu: %.17g\n", static_cast<unsigned long long>(epoch.number()), sum);
  }
  const int code = session.finish();
  if (code == 0 && speaks) {
    double sum = 0;
    for (const auto& parameter : net->parameters()) sum += parameter.detach().to(torch::kDouble).sum().item<double>();
    std::printf("parameters %.17g\n", sum);
  }
  return code;
}
