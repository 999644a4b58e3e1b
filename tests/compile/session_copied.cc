// says: a session cannot be copied
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  auto other = session;
  return session.finish();
}
