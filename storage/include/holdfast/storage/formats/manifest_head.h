// The part of a manifest that a list of versions shows.
#pragma once

#include <cstddef>
#include <string_view>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast::storage {

struct ManifestHead {
  Manifest manifest;        // without `tensors`, `tied` and `values`
  std::size_t tensors = 0;  // how many there are
};

/// Like decode_manifest(), but much faster with many tensors: these are not decoded, only covered by the entry's
/// digest.
Result<ManifestHead> decode_manifest_head(std::string_view bytes);

}  // namespace holdfast::storage
