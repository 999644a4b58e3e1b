// The state and options of LibTorch's optimizers, field by field: the only place that depends on them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace torch::optim {
class Optimizer;
class OptimizerOptions;
class OptimizerParamState;
}  // namespace torch::optim

namespace holdfast {

/// Called with every field of a parameter's state, or of a group's options, under LibTorch's own name for it.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(const char* name, bool& x) = 0;
  virtual void field(const char* name, std::int64_t& x) = 0;
  virtual void field(const char* name, double& x) = 0;
  virtual void field(const char* name, std::tuple<double, double>& x) = 0;
  virtual void field(const char* name, std::optional<std::int64_t>& x) = 0;
  virtual void field(const char* name, std::optional<std::string>& x) = 0;
  virtual void field(const char* name, at::Tensor& x) = 0;
  virtual void field(const char* name, std::deque<at::Tensor>& x) = 0;
  virtual void field(const char* name, std::optional<std::vector<at::Tensor>>& x) = 0;
};

class OptimizerFields {
 public:
  virtual ~OptimizerFields() = default;
  /// "AdamW"
  virtual const char* name() const = 0;
  virtual std::unique_ptr<torch::optim::OptimizerParamState> make_state() const = 0;
  virtual void visit(torch::optim::OptimizerParamState& state, FieldVisitor& visitor) const = 0;
  virtual void visit(torch::optim::OptimizerOptions& options, FieldVisitor& visitor) const = 0;
};

/// Null for a class that is not exactly one of LibTorch's or of fused_optimizers.h, which share name and fields with
/// LibTorch's, because a subclass may keep more than its base. Static lifetime.
const OptimizerFields* fields_of(const torch::optim::Optimizer& optimizer);

}  // namespace holdfast
