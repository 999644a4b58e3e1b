// What is trained of a module.
#pragma once

#include <vector>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// The module's parameters that take gradients, in its order; tied ones once, under their first name.
std::vector<NamedParameter> trainable_parameters(const torch::nn::Module& net);

}  // namespace holdfast
