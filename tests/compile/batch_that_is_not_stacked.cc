// says: map the dataset
#include "program.h"

int main(int argc, char** argv) {
  auto session = holdfast::Session::start(argc, argv);
  holdfast::Loader loader(Samples(), {.batch_size = 4});
  for (auto& batch : session.steps(loader, {.epochs = 2})) auto x = batch.data;
  return session.finish();
}
