// says: iterate over a holdfast::Loader
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  auto loader = torch::data::make_data_loader(Samples().map(torch::data::transforms::Stack<>()), 8);
  for (auto& batch : session.steps(*loader, {.epochs = 2})) (void)batch;
  return session.finish();
}
