#include "pipeline/trainable_parameters.h"

#include <torch/nn/module.h>

#include <set>

namespace holdfast {

std::vector<NamedParameter> trainable_parameters(const torch::nn::Module& net) {
  std::vector<NamedParameter> found;
  std::set<const void*> seen;
  for (const auto& parameter : net.named_parameters()) {
    if (!parameter.value().requires_grad() || !seen.insert(parameter.value().unsafeGetTensorImpl()).second) continue;
    found.push_back({parameter.key(), parameter.value()});
  }
  return found;
}

}  // namespace holdfast
