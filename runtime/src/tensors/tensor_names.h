// The names under which one walk over everything tracked found its tensors, and which of them share their bytes.
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

/// The names are those of the TensorNames that it is from.
struct NamedTensor {
  const std::string& name;
  const std::string& stored_as;  // its own name, or that of the first tensor with the same bytes
  at::Tensor tensor;
  bool is_alike = true;      // on every rank, or an error: parameters
  bool is_variable = false;  // a variable of the program's own, which may be given a tensor of another shape
  std::size_t owner = 0;     // its tracked item's place in TensorNames::owners()
  std::size_t next = 0;      // in TensorNames::all(), of the next tensor that begins at the same place; 0: none
};

class TensorNames {
 public:
  /// Room for that many tensors is made at once.
  explicit TensorNames(std::size_t expected = 0);
  TensorNames(TensorNames&&) = default;
  TensorNames(const TensorNames&) = delete;

  /// A tracked item, whose tensors stand side by side.
  struct Owner {
    std::string name;
    bool is_resizable = false;
    std::size_t first = 0;  // of its tensors in all()
  };

  /// What is added from now on belongs to this item.
  void begin_owner(const std::string& name, bool is_resizable);
  /// Throws Error (invalid) for a name that is taken.
  void add(const std::string& name, const at::Tensor& tensor, bool is_alike, bool is_variable = false);

  /// In the order they were added.
  const std::vector<NamedTensor>& all() const { return all_; }
  const std::vector<Owner>& owners() const { return owners_; }
  /// The item's tensors; none where it added none.
  std::span<const NamedTensor> of(std::string_view owner) const;
  /// Null for a name that was not added.
  const NamedTensor* find_named(const std::string& name) const;
  const at::Tensor* find(const std::string& name) const;
  /// Every name of these very bytes: first the tensor's own, then those tied to it. Empty: it is in nothing tracked.
  std::vector<std::string> names_of(const at::Tensor& tensor) const;
  /// The first of them; null where it is in nothing tracked.
  const std::string* name_of(const at::Tensor& tensor) const;

 private:
  // Storage, or the tensor itself where it shares none, and offset.
  using Place = std::pair<const void*, std::int64_t>;
  struct HashPlace {
    std::size_t operator()(const Place& place) const {
      return std::hash<const void*>()(place.first) ^ std::hash<std::int64_t>()(place.second) * 0x9e3779b97f4a7c15u;
    }
  };
  static Place place_of(const at::Tensor& tensor);
  /// Calls `visit` with each tensor that has these very bytes, in order, until it says true.
  template <class Visit>
  void each_with_bytes_of(const at::Tensor& tensor, const Visit& visit) const;

  std::vector<NamedTensor> all_;
  std::vector<Owner> owners_;
  std::unordered_map<std::string, std::size_t> by_name_;        // the keys stay where they are
  std::unordered_map<const void*, std::size_t> by_impl_;        // the first of that handle
  std::unordered_map<Place, std::size_t, HashPlace> by_place_;  // the first one
};

}  // namespace holdfast
