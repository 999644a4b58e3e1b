// The mean of the ranks' gradients, for loops that have no pipeline.
#pragma once

#include <string>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"
#include "holdfast/runtime/ranks/group.h"

namespace holdfast {

/// Replaces each gradient by the mean over all ranks of `weight` times it. One that only some ranks have counts as zero
/// on the others; one that no rank has stays undefined. `parameters`: each once. All ranks call it together. With
/// `suspect`, which waits for the device, returns a sentence where all ranks came with the very same gradients, as they
/// do when each of them is given the same samples; else empty.
std::string average_gradients(Group& group, const std::vector<NamedParameter>& parameters, double weight, bool suspect,
                              Group::Site site);

}  // namespace holdfast
