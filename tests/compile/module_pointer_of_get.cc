// says: track the holder itself
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  torch::nn::Linear net(2, 2);
  session.track("net", net.get());
  return session.finish();
}
