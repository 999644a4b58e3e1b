// says: needs the step of the loop first
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  torch::nn::Linear net(2, 2);
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  auto pipeline = session.pipeline(net, optimizer, {holdfast::Ddp()});
  pipeline.step([&] { return net(torch::ones({1, 2})).sum(); });
  return session.finish();
}
