#include <cstdio>

#include "holdfast/storage/stores/memory_store.h"

int main() {
  const auto store = holdfast::storage::open_memory_store(holdfast::storage::make_memory_image());
  return std::printf("%s\n", store->location().c_str()) > 0 ? 0 : 1;
}
