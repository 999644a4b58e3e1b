// Tracked JSON values, and tracked objects of user types, which consist of tensors and values.
#pragma once

#include <memory>
#include <string>

#include "holdfast/runtime/serialize/object_access.h"
#include "holdfast/runtime/serialize/value_access.h"
#include "state/tracked_item.h"

namespace holdfast {

std::unique_ptr<TrackedItem> make_tracked_value(std::string name, detail::ValueAccess access);

std::unique_ptr<TrackedItem> make_tracked_object(std::string name, detail::ObjectAccess access);

}  // namespace holdfast
