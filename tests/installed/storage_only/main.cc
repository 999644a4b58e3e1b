// Writes one object and reads it back through the installed library.
#include <holdfast/storage/stores/memory_store.h>

#include <cstdio>

int main() {
  namespace storage = holdfast::storage;
  auto store = storage::open_memory_store(storage::make_memory_image());
  const std::string name = "journal/000001-00000000.open.json";
  auto staged = store->stage(name, "{}");
  if (!store->prepare() || !staged || !(*staged)->publish()) return 1;
  auto bytes = store->get(name);
  if (!bytes || *bytes != "{}") return 1;
  std::printf("the installed storage library works\n");
}
