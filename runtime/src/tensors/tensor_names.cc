#include "tensors/tensor_names.h"

#include <algorithm>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

bool has_bytes(const at::Tensor& tensor) { return tensor.has_storage() && tensor.numel() > 0; }

/// Whether two tensors at the same place have the same elements in the same order. Tensors that overlap otherwise are
/// stored separately; after a load, which copies in place, they are still views of each other.
bool same_elements(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (!has_bytes(a) || a.strides() == b.strides()) && a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg();
}

}  // namespace

TensorNames::TensorNames(std::size_t expected) {
  all_.reserve(expected);
  by_name_.reserve(expected);
  by_impl_.reserve(expected);
  by_place_.reserve(expected);
}

TensorNames::Place TensorNames::place_of(const at::Tensor& tensor) {
  if (!has_bytes(tensor)) return {tensor.unsafeGetTensorImpl(), 0};  // empty tensors share nothing
  return {tensor.storage().unsafeGetStorageImpl(), tensor.storage_offset()};
}

template <class Visit>
void TensorNames::each_with_bytes_of(const at::Tensor& tensor, const Visit& visit) const {
  const auto first = by_place_.find(place_of(tensor));
  if (first == by_place_.end()) return;
  std::size_t index = first->second;
  do {
    if (same_elements(all_[index].tensor, tensor) && visit(index)) return;
    index = all_[index].next;
  } while (index != 0);
}

void TensorNames::begin_owner(const std::string& name, bool is_resizable) {
  owners_.push_back({name, is_resizable, all_.size()});
}

void TensorNames::add(const std::string& name, const at::Tensor& tensor, bool is_alike, bool is_variable) {
  const std::size_t index = all_.size();
  const auto [own, is_free] = by_name_.emplace(name, index);
  if (!is_free) {
    throw Error(storage::StatusCode::invalid,
                "two tracked tensors are called '" + name + "': track one of their owners under another name");
  }
  by_impl_.emplace(tensor.unsafeGetTensorImpl(), index);
  const std::string* stored_as = &own->first;
  each_with_bytes_of(tensor, [&](std::size_t first) {
    stored_as = &all_[first].name;
    return true;
  });
  all_.push_back({own->first, *stored_as, tensor, is_alike, is_variable, owners_.empty() ? 0 : owners_.size() - 1});
  const auto [here, is_first] = by_place_.emplace(place_of(tensor), index);
  if (is_first) return;
  std::size_t last = here->second;
  while (all_[last].next != 0) last = all_[last].next;
  all_[last].next = index;
}

std::span<const NamedTensor> TensorNames::of(std::string_view owner) const {
  const auto found = std::find_if(owners_.begin(), owners_.end(), [&](const Owner& one) { return one.name == owner; });
  if (found == owners_.end()) return {};
  const std::size_t end = std::next(found) == owners_.end() ? all_.size() : std::next(found)->first;
  return std::span(all_).subspan(found->first, end - found->first);
}

const NamedTensor* TensorNames::find_named(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &all_[found->second];
}

const at::Tensor* TensorNames::find(const std::string& name) const {
  const NamedTensor* const named = find_named(name);
  return named == nullptr ? nullptr : &named->tensor;
}

std::vector<std::string> TensorNames::names_of(const at::Tensor& tensor) const {
  std::vector<std::string> names;
  const auto own = by_impl_.find(tensor.unsafeGetTensorImpl());
  if (own != by_impl_.end()) names.push_back(all_[own->second].name);
  each_with_bytes_of(tensor, [&](std::size_t index) {
    if (own == by_impl_.end() || own->second != index) names.push_back(all_[index].name);
    return false;
  });
  return names;
}

const std::string* TensorNames::name_of(const at::Tensor& tensor) const {
  if (const auto own = by_impl_.find(tensor.unsafeGetTensorImpl()); own != by_impl_.end()) {
    return &all_[own->second].name;
  }
  const std::string* name = nullptr;
  each_with_bytes_of(tensor, [&](std::size_t index) {
    name = &all_[index].name;
    return true;
  });
  return name;
}

}  // namespace holdfast
