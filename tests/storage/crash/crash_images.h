// The images that a loss of power may leave of a simulated disk (disk_content.h gives the model).
#pragma once

#include <functional>

#include "disk_content.h"
#include "holdfast/storage/formats/digest.h"

namespace holdfast::storage::crash {

enum class Visit { skip, look, stop };

/// Calls `wanted` for each distinct image that a loss of power now may leave, with the image's digest (over paths and
/// bytes), and calls `look` for those that it wants to see. An image has no pending part.
void for_each_image(const DiskContent& disk, const std::function<Visit(const Digest&)>& wanted,
                    const std::function<void(const DiskContent&)>& look);

}  // namespace holdfast::storage::crash
