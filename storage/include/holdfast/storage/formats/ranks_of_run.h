// How many ranks trained what a version holds. One rank writes the files for all of them, so the manifest's own
// world_size is not that number; a runtime says it in made_by, as FORMAT.md has it.
#pragma once

#include <optional>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

/// Nothing where the writer did not say.
std::optional<int> ranks_of_run(const Manifest& manifest);

}  // namespace holdfast::storage
