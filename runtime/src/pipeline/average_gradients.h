// The mean of the ranks' gradients, for loops without a pipeline.
#pragma once

#include <string>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"
#include "holdfast/runtime/ranks/group.h"

namespace holdfast {

/// Replaces each gradient by the mean over all ranks of `weight` times it. A gradient that only some ranks have counts
/// as zero on the others; one that no rank has stays undefined. `parameters`: each once. All ranks call it together.
/// With `suspect`, which waits for the device, returns a sentence if all ranks have exactly the same gradients, as with
/// the same samples on each of them; else empty.
std::string average_gradients(Group& group, const std::vector<NamedParameter>& parameters, double weight, bool suspect,
                              Group::Site site);

}  // namespace holdfast
