// says: this one is const
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  const double rate = 0.1;
  session.track("rate", rate);
  return session.finish();
}
