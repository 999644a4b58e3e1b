#include "holdfast/runtime/pipeline/stages/clip_grad.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "holdfast/runtime/error.h"
#include "tensors/tensor_groups.h"

namespace holdfast {

ClipGradNorm::ClipGradNorm(double largest, double p) : largest_(largest), p_(p) {
  if (!(largest > 0) || !(p > 0)) {
    throw Error(storage::StatusCode::invalid, fmt::format("ClipGradNorm({}, {}): both must be above 0", largest, p));
  }
}

void ClipGradNorm::before_update(Update& update) {
  const auto groups = dense_by_kind(update.gradients, name());
  if (groups.empty()) return;
  std::vector<at::Tensor> norms;
  const auto device = groups.front().front().device();
  for (const auto& group : groups) {
    for (const at::Tensor& norm : at::_foreach_norm(group, p_)) norms.push_back(norm.to(device));
  }
  norm_ = at::linalg_vector_norm(at::stack(norms), p_);
  const at::Tensor factor = at::clamp(largest_ / (norm_ + 1e-6), c10::nullopt, 1.0);
  for (const auto& group : groups) at::_foreach_mul_(group, factor.to(group.front().device()));
}

ClipGradValue::ClipGradValue(double largest) : largest_(largest) {
  if (!(largest > 0)) {
    throw Error(storage::StatusCode::invalid, fmt::format("ClipGradValue({}): it must be above 0", largest));
  }
}

void ClipGradValue::before_update(Update& update) {
  for (const auto& group : dense_by_kind(update.gradients, name())) {
    at::_foreach_clamp_min_(group, -largest_);
    at::_foreach_clamp_max_(group, largest_);
  }
}

}  // namespace holdfast
