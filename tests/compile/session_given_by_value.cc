// says: a session cannot be copied
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  auto finish = [](holdfast::Session own) { return own.finish(); };
  finish(session);
  return session.finish();
}
