// The names of the tensors that one walk over everything tracked found, and which tensors share their bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace holdfast {

/// The name references belong to the TensorNames that returned the object.
struct NamedTensor {
  const std::string& name;
  const std::string& stored_as;  // its own name, or that of the first tensor with the same bytes
  at::Tensor tensor;
  bool is_alike = true;      // replicated: parameters, which must be equal on every rank
  bool is_variable = false;  // a variable of the program, which may be assigned a tensor of another shape
  std::size_t owner = 0;     // its tracked item's place in TensorNames::owners()
  std::size_t next = 0;      // index in TensorNames::all() of the next tensor that begins at the same place; 0: none
};

class TensorNames {
 public:
  /// Reserves memory for `expected` tensors.
  explicit TensorNames(std::size_t expected = 0);
  TensorNames(TensorNames&&) = default;
  TensorNames(const TensorNames&) = delete;

  /// A tracked item. Its tensors are consecutive in all().
  struct Owner {
    std::string name;
    bool is_resizable = false;
    std::size_t first = 0;  // index of its first tensor in all()
  };

  /// Later additions belong to this item.
  void begin_owner(const std::string& name, bool is_resizable);
  /// Throws Error (invalid) for a name that is taken.
  void add(const std::string& name, const at::Tensor& tensor, bool is_alike, bool is_variable = false);

  /// In the order they were added.
  const std::vector<NamedTensor>& all() const { return all_; }
  const std::vector<Owner>& owners() const { return owners_; }
  /// The item's tensors; empty if it added none.
  std::span<const NamedTensor> of(std::string_view owner) const;
  /// Null for a name that was not added.
  const NamedTensor* find_named(const std::string& name) const;
  const at::Tensor* find(const std::string& name) const;
  /// Every name of exactly these bytes: the tensor's own name first, then those tied to it. Empty if it is not tracked.
  std::vector<std::string> names_of(const at::Tensor& tensor) const;
  /// The first of names_of(); null if the tensor is not tracked.
  const std::string* name_of(const at::Tensor& tensor) const;

 private:
  // Storage and offset; for a tensor that shares no storage, the tensor itself instead of the storage.
  using Place = std::pair<const void*, std::int64_t>;
  struct HashPlace {
    std::size_t operator()(const Place& place) const {
      return std::hash<const void*>()(place.first) ^ std::hash<std::int64_t>()(place.second) * 0x9e3779b97f4a7c15u;
    }
  };
  static Place place_of(const at::Tensor& tensor);
  /// Calls `visit` with each tensor that has exactly these bytes, in order, until it returns true.
  template <class Visit>
  void each_with_bytes_of(const at::Tensor& tensor, const Visit& visit) const;

  std::vector<NamedTensor> all_;
  std::vector<Owner> owners_;
  std::unordered_map<std::string, std::size_t> by_name_;        // its keys do not move
  std::unordered_map<const void*, std::size_t> by_impl_;        // the first tensor with that handle
  std::unordered_map<Place, std::size_t, HashPlace> by_place_;  // the first tensor at that place
};

}  // namespace holdfast
