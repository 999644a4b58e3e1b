// Lists of tensors for one kernel: all of one device and dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "holdfast/runtime/error.h"

namespace holdfast {

/// In the order of the first tensor of each kind, without empty tensors, because some kernels do not accept them.
inline std::vector<std::vector<at::Tensor>> by_kind(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<at::Tensor>> groups;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() == 0) continue;
    auto found = groups.begin();
    while (found != groups.end() &&
           (found->front().device() != tensor.device() || found->front().scalar_type() != tensor.scalar_type())) {
      ++found;
    }
    if (found == groups.end()) found = groups.emplace(groups.end());
    found->push_back(tensor);
  }
  return groups;
}

/// by_kind() for the gradients of a stage that requires dense ones: Error(unsupported) names the stage.
inline std::vector<std::vector<at::Tensor>> dense_by_kind(const std::vector<at::Tensor>& gradients,
                                                          const std::string& stage) {
  for (const at::Tensor& gradient : gradients) {
    if (gradient.layout() == at::kStrided) continue;
    throw Error(storage::StatusCode::unsupported,
                stage + " takes dense gradients: make the embedding without sparse(true), or leave the stage out");
  }
  return by_kind(gradients);
}

}  // namespace holdfast
