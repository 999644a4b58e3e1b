// A tracked tensor variable.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "state/tracked_item.h"

namespace holdfast {

/// Tracks the variable, not the handle that it holds now: it may be assigned another one, and be undefined. Its value
/// is the device, or, if the tensor may require a gradient, {"device": "cpu", "requires_grad": true, "initial": false},
/// where "initial" is the flag when the run began.
std::unique_ptr<TrackedItem> make_tracked_tensor(std::string name, at::Tensor& tensor);

}  // namespace holdfast
