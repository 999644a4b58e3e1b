// The differences between two checkpoints: tensors, position, values.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "inspect/checkpoint.h"
#include "inspect/tensor_diff.h"

namespace holdfast::tools {

struct ChangedTensor {
  std::string name;
  const storage::TensorEntry* a = nullptr;
  const storage::TensorEntry* b = nullptr;
  std::optional<TensorDiff> diff;  // empty if the shapes differ
};

/// A member that differs between two JSON objects; null if it is missing on one side.
struct ChangedValue {
  std::string path;  // JSON pointer
  std::optional<nlohmann::json> a;
  std::optional<nlohmann::json> b;
};

struct Difference {
  std::size_t alike = 0;
  std::vector<ChangedTensor> tensors;
  std::vector<std::string> only_in_a;
  std::vector<std::string> only_in_b;
  std::vector<ChangedValue> values;  // "/position/…", "/tied/…", "/values/…"
  bool compared_values = false;
  bool none() const { return tensors.empty() && only_in_a.empty() && only_in_b.empty() && values.empty(); }
};

/// Both checkpoints must outlive the result. Tensors whose recorded digests agree are read only with `every_byte`.
/// `progress(done, total)` is called with bytes.
storage::Result<Difference> compare(const Checkpoint& a, const Checkpoint& b, bool every_byte,
                                    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);

}  // namespace holdfast::tools
