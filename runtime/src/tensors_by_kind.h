// Lists of tensors that one kernel takes: of one device and dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace holdfast {

/// In the order of the first tensor of each kind.
inline std::vector<std::vector<at::Tensor>> by_kind(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<at::Tensor>> groups;
  for (const at::Tensor& tensor : tensors) {
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

}  // namespace holdfast
