// says: make a holdfast::Loader
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  auto loader = torch::data::make_data_loader(Samples().map(torch::data::transforms::Stack<>()), 8);
  session.track("loader", loader);
  return session.finish();
}
