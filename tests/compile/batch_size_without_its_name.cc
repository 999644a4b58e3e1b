// says: takes the batch size by name
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  holdfast::Loader loader(Samples().map(torch::data::transforms::Stack<>()), 64);
  return session.finish();
}
