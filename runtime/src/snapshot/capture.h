// What tracked items fill when the state is saved.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/run/payload.h"
#include "tensors/tensor_names.h"
#include "tensors/tensor_source.h"

namespace holdfast {

class Capture {
 public:
  /// `parameters` returns the tensors that tracked optimizers update; it is called only if a tensor has changed its
  /// shape. `digests_generators`: whether `generators` is also filled.
  Capture(const TensorNames& names, std::function<std::set<const void*>()> parameters, bool digests_generators);

  const TensorNames& names() const { return names_; }
  /// Whether a tracked optimizer updates this tensor.
  bool is_parameter(const at::Tensor& tensor) const;
  /// Adds a tensor that is not in names(). `is_alike`: replicated, so rank 0's represents all ranks'.
  /// Throws as make_source does.
  void tensor(const std::string& name, const at::Tensor& tensor, bool is_alike);
  /// Sets the value of the tracked object `name`; numbers that JSON cannot represent are allowed.
  void value(const std::string& name, nlohmann::json value);
  bool digests_generators() const { return digests_generators_; }
  /// Records the digest of the value or tensor of this name, which is a generator's state.
  void generator(const std::string& name);
  /// All tensors with their own bytes, by name. Call it last. Throws Error (invalid) for a name that is taken.
  std::vector<storage::TensorSource> take_sources();

  std::map<std::string, std::string> tied;
  nlohmann::json values = nlohmann::json::object();
  std::set<std::string> may_differ;               // tensors that ranks may hold differently
  std::map<std::string, std::string> generators;  // digests of states, by name

 private:
  const TensorNames& names_;
  const std::function<std::set<const void*>()> parameters_;
  const bool digests_generators_;
  std::shared_ptr<CopyBuffer> buffer_;
  std::vector<storage::TensorSource> sources_;
};

}  // namespace holdfast
