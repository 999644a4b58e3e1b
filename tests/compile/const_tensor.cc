// says: this one is const
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  const auto fixed = torch::randn({3});
  session.track("fixed", fixed);
  return session.finish();
}
