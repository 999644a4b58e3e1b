// says: would leave its holdfast_state() out
#include "program.h"

struct NetImpl : torch::nn::LinearImpl {
  using LinearImpl::LinearImpl;
  int steps = 0;
  template <class Archive>
  void holdfast_state(Archive& a) {
    a("steps", steps);
  }
};
TORCH_MODULE(Net);

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  Net net(2, 2);
  session.track("net", net);
  return session.finish();
}
