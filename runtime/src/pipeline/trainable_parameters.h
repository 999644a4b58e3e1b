// The parameters of a module that are trained.
#pragma once

#include <vector>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// The module's parameters that require gradients, in its order; tied ones once, under their first name.
std::vector<NamedParameter> trainable_parameters(const torch::nn::Module& net);

}  // namespace holdfast
