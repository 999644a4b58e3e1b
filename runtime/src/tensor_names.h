// The names under which one walk over everything tracked found its tensors, and which of them share their bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace holdfast {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
  std::string stored_as;     // its own name, or that of the first tensor with the same bytes
  bool is_alike = true;      // on every rank, or an error: parameters
  bool is_variable = false;  // a variable of the program's own, which may be given a tensor of another shape
};

class TensorNames {
 public:
  /// Throws Error (invalid) for a name that is taken.
  void add(const std::string& name, const at::Tensor& tensor, bool is_alike, bool is_variable = false);

  /// In the order they were added.
  const std::vector<NamedTensor>& all() const { return all_; }
  /// Null for a name that was not added.
  const at::Tensor* find(const std::string& name) const;
  /// Every name of these very bytes: first the tensor's own, then those tied to it. Empty: it is in nothing tracked.
  std::vector<std::string> names_of(const at::Tensor& tensor) const;

 private:
  // Storage, offset, dtype, sizes, strides, conjugate, negative: equal keys are the same elements in the same order.
  // Tensors that overlap otherwise are stored separately, and are still views of each other after a load that copies in
  // place.
  using Bytes = std::tuple<const void*, std::int64_t, c10::ScalarType, std::vector<std::int64_t>,
                           std::vector<std::int64_t>, bool, bool>;
  static Bytes bytes_of(const at::Tensor& tensor);

  std::vector<NamedTensor> all_;
  std::map<std::string, std::size_t> by_name_;
  std::unordered_map<const void*, std::string> by_impl_;
  std::map<Bytes, std::vector<std::string>> by_bytes_;
};

}  // namespace holdfast
