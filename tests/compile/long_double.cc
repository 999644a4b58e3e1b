// says: use a double
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  long double x = 1;
  session.track("x", x);
  return session.finish();
}
