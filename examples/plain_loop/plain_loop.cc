// A typical LibTorch training loop, wrapped by the six marked lines. unwrapped.cc is the same without them.
#include <holdfast/holdfast.h>  // 1
#include <torch/torch.h>

#include "net.h"
#include "spiral.h"

namespace F = torch::nn::functional;
using torch::data::transforms::Stack;

// clang-format off
int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv, {.run = "spiral", .seed = 42});                    // 2
  auto device = torch::cuda::is_available() ? torch::kCUDA : torch::kCPU;
  Net net;
  net->to(device);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  holdfast::Loader loader(Spiral().map(Stack<>()), {.batch_size = 64});                                  // 3
  session.track("net", net).track("optimizer", optimizer);                                               // 4
  for (auto& batch : session.steps(loader, {.epochs = 10})) {                                            // 5
    optimizer.zero_grad();
    auto loss = F::cross_entropy(net->forward(batch.data.to(device)), batch.target.to(device));
    loss.backward();
    optimizer.step();
  }
  return session.finish();                                                                               // 6
}
