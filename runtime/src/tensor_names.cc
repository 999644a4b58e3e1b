#include "tensor_names.h"

#include <algorithm>

#include "holdfast/runtime/error.h"

namespace holdfast {

TensorNames::Bytes TensorNames::bytes_of(const at::Tensor& tensor) {
  const bool has_storage = tensor.has_storage() && tensor.numel() > 0;  // empty ones share nothing
  return {has_storage ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl())
                      : static_cast<const void*>(tensor.unsafeGetTensorImpl()),
          has_storage ? tensor.storage_offset() : 0,
          tensor.scalar_type(),
          tensor.sizes().vec(),
          has_storage ? tensor.strides().vec() : std::vector<std::int64_t>(),
          tensor.is_conj(),
          tensor.is_neg()};
}

void TensorNames::add(const std::string& name, const at::Tensor& tensor, bool is_alike, bool is_variable) {
  if (!by_name_.emplace(name, all_.size()).second) {
    throw Error(storage::StatusCode::invalid,
                "two tracked tensors are called '" + name + "': track one of their owners under another name");
  }
  auto& names = by_bytes_[bytes_of(tensor)];
  names.push_back(name);
  by_impl_.emplace(tensor.unsafeGetTensorImpl(), name);
  all_.push_back({name, tensor, names.front(), is_alike, is_variable});
}

const at::Tensor* TensorNames::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &all_[found->second].tensor;
}

std::vector<std::string> TensorNames::names_of(const at::Tensor& tensor) const {
  std::vector<std::string> names;
  if (const auto found = by_bytes_.find(bytes_of(tensor)); found != by_bytes_.end()) names = found->second;
  if (const auto own = by_impl_.find(tensor.unsafeGetTensorImpl()); own != by_impl_.end()) {
    const auto at = std::find(names.begin(), names.end(), own->second);
    if (at == names.end()) return {own->second};
    std::rotate(names.begin(), at, at + 1);
  }
  return names;
}

}  // namespace holdfast
