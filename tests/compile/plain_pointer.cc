// says: does not take a plain pointer
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  double x = 1;
  double* pointer = &x;
  session.track("x", pointer);
  return session.finish();
}
