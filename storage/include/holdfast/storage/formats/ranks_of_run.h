// How many ranks trained a version. One rank writes the files for all of them, so the manifest's own world_size is not
// that number; a runtime records it in made_by, as FORMAT.md describes.
#pragma once

#include <optional>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

/// Empty if the writer did not record it.
std::optional<int> ranks_of_run(const Manifest& manifest);

}  // namespace holdfast::storage
