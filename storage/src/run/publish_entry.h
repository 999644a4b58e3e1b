// Puts a journal entry under its name, create-only. Private to the protocols.
#pragma once

#include <memory>
#include <string>

#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// Gives a staged entry its name. A session of another host that has not seen our open entry may treat this writer as
/// dead and remove the staged entry: then it is staged again. A durable entry on a store that may publish in part
/// (`atomic_publish`) is read back: `corrupt` if it is not whole.
Status publish_staged(Store& store, std::unique_ptr<StagedObject> staged, const std::string& name,
                      const std::string& bytes, bool durable = true);

/// Publishes a whole entry under its name. `durable` is false for entries that nothing depends on.
Status publish_entry(Store& store, const std::string& name, const std::string& bytes, bool durable = true);

}  // namespace holdfast::storage
