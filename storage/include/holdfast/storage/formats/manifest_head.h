// What a list of versions shows of one.
#pragma once

#include <cstddef>
#include <string_view>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

struct ManifestHead {
  Manifest manifest;        // without its tensors, what is tied, and values
  std::size_t tensors = 0;  // how many there are
};

/// As decode_manifest(), in a fraction of the time where there are many tensors: those are not looked at, beyond the
/// digest that covers all.
Result<ManifestHead> decode_manifest_head(std::string_view bytes);

}  // namespace holdfast::storage
