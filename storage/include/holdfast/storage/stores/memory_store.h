// The `memory` driver: a run in this process's memory, for tests and for state that need not outlive it.
// Enforces create-only, publishes atomically, lists after create; durable_put is false. Stores opened on one image
// share its objects, so that two writers can use one run.
#pragma once

#include <memory>

#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// The objects of a run; may be used from any thread. Stores opened on the same image see the same run.
class MemoryImage;
std::shared_ptr<MemoryImage> make_memory_image();
std::unique_ptr<Store> open_memory_store(std::shared_ptr<MemoryImage> image);

}  // namespace holdfast::storage
