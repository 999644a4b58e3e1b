// says: this is a temporary value
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  session.track("fixed", torch::randn({3}));
  return session.finish();
}
