// says: this is a temporary value
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  session.track("five", 5);
  return session.finish();
}
