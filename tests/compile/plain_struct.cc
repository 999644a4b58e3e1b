// says: name its members in
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  struct Settings {
    double rate = 1;
  } settings;
  session.track("settings", settings);
  return session.finish();
}
