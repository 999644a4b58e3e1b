// says: track the engine that it seeds
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  std::random_device device;
  session.track("device", device);
  return session.finish();
}
