// A tensor's dtype and shape, which a saved tensor and the program's tensor must share.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/DimVector.h>

#include <string>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast {

/// Small, because a run keeps one for each parameter.
struct TensorForm {
  at::ScalarType dtype = at::kFloat;
  c10::DimVector shape;

  bool operator==(const TensorForm&) const = default;
};
TensorForm form_of(const at::Tensor& tensor);

bool has_form_of(const at::Tensor& tensor, const storage::TensorEntry& entry);
/// "F32 [10, 20]".
std::string describe(const storage::TensorEntry& entry);
std::string describe(const at::Tensor& tensor);
std::string describe(const TensorForm& form);

/// Gives `tensor` the memory, shape and dtype of `made` in place, so that every handle of it, such as a module's member
/// and an optimizer's group, sees them. It stays the same leaf in autograd; its gradient, which has the former shape,
/// is dropped. `tensor` must be a leaf, and `made` of floating point if `tensor` requires a gradient.
void take_form(at::Tensor tensor, const at::Tensor& made);

}  // namespace holdfast
