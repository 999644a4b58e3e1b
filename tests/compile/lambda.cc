// says: name its members in
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  auto twice = [](int x) { return 2 * x; };
  session.track("twice", twice);
  return session.finish();
}
