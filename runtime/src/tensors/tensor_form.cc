#include "tensors/tensor_form.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <string_view>
#include <utility>

#include "tensors/dtype.h"

namespace holdfast {
namespace {

// A weak pointer to no gradient accumulator. LibTorch 2.11 and 2.12 hold accumulators in std::shared_ptr, 2.13 and
// newer in c10::intrusive_ptr, whose weak pointer has no default constructor.
auto no_grad_accumulator() {
  using Accumulator = decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>()));
  return decltype(torch::autograd::AutogradMeta::grad_accumulator_)(Accumulator());
}

std::string text_of(std::string_view dtype, at::IntArrayRef shape) {
  std::string text = std::string(dtype) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string_view name_of(at::ScalarType type) {
  const auto dtype = to_dtype(type);
  return dtype ? to_string(*dtype) : c10::toString(type);
}

}  // namespace

TensorForm form_of(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {tensor.scalar_type(), c10::DimVector(sizes.begin(), sizes.end())};
}

bool has_form_of(const at::Tensor& tensor, const storage::TensorEntry& entry) {
  return tensor.sizes() == at::IntArrayRef(entry.shape) && *to_dtype(tensor.scalar_type()) == entry.dtype;
}

std::string describe(const at::Tensor& tensor) { return text_of(name_of(tensor.scalar_type()), tensor.sizes()); }

std::string describe(const TensorForm& form) { return text_of(name_of(form.dtype), form.shape); }

std::string describe(const storage::TensorEntry& entry) { return text_of(to_string(entry.dtype), entry.shape); }

void take_form(at::Tensor tensor, const at::Tensor& made) {
  const at::NoGradGuard no_grad;
  tensor.mutable_grad().reset();
  tensor.set_data(made);
  tensor.unsafeGetTensorImpl()->bump_version();  // backward() through results of the former tensor is then an error
  // The gradient accumulator checks gradients against the shape that it was created with.
  torch::autograd::impl::set_grad_accumulator(tensor, no_grad_accumulator());
}

}  // namespace holdfast
