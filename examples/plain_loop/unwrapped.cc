// A typical LibTorch training loop. plain_loop.cc is the same program with Holdfast.
#include <torch/torch.h>

#include "net.h"
#include "spiral.h"

namespace F = torch::nn::functional;
using torch::data::transforms::Stack;

// clang-format off
int main() {
  auto device = torch::cuda::is_available() ? torch::kCUDA : torch::kCPU;
  Net net;
  net->to(device);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  auto loader = torch::data::make_data_loader<torch::data::samplers::RandomSampler>(Spiral().map(Stack<>()), 64);
  for (int epoch = 0; epoch < 10; ++epoch) for (auto& batch : *loader) {
    optimizer.zero_grad();
    auto loss = F::cross_entropy(net->forward(batch.data.to(device)), batch.target.to(device));
    loss.backward();
    optimizer.step();
  }
  return 0;
}
