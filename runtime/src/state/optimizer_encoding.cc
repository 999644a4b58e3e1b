#include "state/optimizer_encoding.h"

#include <ATen/ops/zeros_like.h>
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace holdfast {
namespace {

using nlohmann::json;

template <class T>
json to_json(const T& x) {
  return x;
}
template <class T>
json to_json(const std::optional<T>& x) {
  return x ? json(*x) : json();
}
template <class T>
void from_json(const json& value, T& x) {
  x = value.get<T>();
}
template <class T>
void from_json(const json& value, std::optional<T>& x) {
  x = value.is_null() ? std::nullopt : std::optional<T>(value.get<T>());
}

/// State and options share the handling of fields that are not tensors.
template <class Derived>
class ScalarFields : public FieldVisitor {
 public:
  void field(const char* name, bool& x) override { derived().scalar(name, x); }
  void field(const char* name, std::int64_t& x) override { derived().scalar(name, x); }
  void field(const char* name, double& x) override { derived().scalar(name, x); }
  void field(const char* name, std::tuple<double, double>& x) override { derived().scalar(name, x); }
  void field(const char* name, std::optional<std::int64_t>& x) override { derived().scalar(name, x); }
  void field(const char* name, std::optional<std::string>& x) override { derived().scalar(name, x); }
  void field(const char*, at::Tensor&) override {}
  void field(const char*, std::deque<at::Tensor>&) override {}
  void field(const char*, std::optional<std::vector<at::Tensor>>&) override {}

 private:
  Derived& derived() { return static_cast<Derived&>(*this); }
};

class ReadOptionFields : public ScalarFields<ReadOptionFields> {
 public:
  template <class T>
  void scalar(const char* name, const T& x) {
    options[name] = to_json(x);
  }
  json options = json::object();
};

class WriteOptionFields : public ScalarFields<WriteOptionFields> {
 public:
  explicit WriteOptionFields(const json& options) : options_(options) {}
  template <class T>
  void scalar(const char* name, T& x) {
    if (options_.contains(name)) from_json(options_.at(name), x);
  }

 private:
  const json& options_;
};

class CaptureStateFields : public ScalarFields<CaptureStateFields> {
 public:
  CaptureStateFields(Capture& capture, std::string prefix) : capture_(capture), prefix_(std::move(prefix)) {}

  using ScalarFields::field;
  void field(const char* name, at::Tensor& x) override { add(name, x); }
  void field(const char* name, std::deque<at::Tensor>& x) override { add_list(name, x); }
  void field(const char* name, std::optional<std::vector<at::Tensor>>& x) override {
    if (x) add_list(name, *x);
  }
  template <class T>
  void scalar(const char* name, const T& x) {
    value[name] = to_json(x);
  }

  json value = json::object();

 private:
  void add(const std::string& name, const at::Tensor& x) {
    if (!x.defined()) return;
    capture_.tensor(prefix_ + name, x, /*is_alike=*/true);
    if (!x.is_contiguous()) value[name + ".strides"] = x.strides().vec();
  }
  template <class List>
  void add_list(const std::string& name, const List& list) {
    value[name] = json::array();
    for (std::size_t i = 0; i < list.size(); ++i) {
      value[name].push_back(list[i].defined());
      add(name + "." + std::to_string(i), list[i]);
    }
  }

  Capture& capture_;
  std::string prefix_;
};

/// Fills a new state object: scalars at once, tensors by steps that run after the tensors were read.
class PlanStateFields : public ScalarFields<PlanStateFields> {
 public:
  PlanStateFields(RestorePlan& plan, std::string prefix, const json& value, at::Device device)
      : plan_(plan), prefix_(std::move(prefix)), value_(value), device_(device) {}

  using ScalarFields::field;
  void field(const char* name, at::Tensor& x) override {
    if (const auto* entry = plan_.find_tensor(prefix_ + name)) make(*entry, name, x);
  }
  void field(const char* name, std::deque<at::Tensor>& x) override { make_list(name, x); }
  void field(const char* name, std::optional<std::vector<at::Tensor>>& x) override {
    if (value_.contains(name)) make_list(name, x.emplace());
  }
  template <class T>
  void scalar(const char* name, T& x) {
    from_json(value_.at(name), x);
  }

 private:
  void make(const storage::TensorEntry& entry, const std::string& name, at::Tensor& x) {
    std::vector<std::int64_t> strides;
    if (const auto found = value_.find(name + ".strides"); found != value_.end()) found->get_to(strides);
    if (!strides.empty() && strides.size() != entry.shape.size()) strides.clear();
    plan_.apply([&x, made = plan_.make(entry, device_, std::move(strides))](std::vector<std::string>&) { x = *made; });
  }
  template <class List>
  void make_list(const std::string& name, List& list) {
    const auto defined = value_.at(name).get<std::vector<bool>>();
    list.resize(defined.size());
    for (std::size_t i = 0; i < defined.size(); ++i) {
      const std::string item = name + "." + std::to_string(i);
      if (!defined[i]) continue;
      if (const auto* entry = plan_.need_tensor(prefix_ + item, "part of the saved state")) make(*entry, item, list[i]);
    }
  }

  RestorePlan& plan_;
  std::string prefix_;
  const json& value_;
  at::Device device_;
};

class CompleteStateFields : public ScalarFields<CompleteStateFields> {
 public:
  CompleteStateFields(const json& options, const at::Tensor& parameter) : options_(options), parameter_(parameter) {}

  using ScalarFields::field;
  void field(const char* name, at::Tensor& x) override {
    if (!x.defined() && is_needed(name)) x = at::zeros_like(parameter_, at::MemoryFormat::Preserve);
  }
  template <class T>
  void scalar(const char*, const T&) {}

 private:
  bool is_needed(const std::string& name) const {
    if (name == "max_exp_avg_sq") return options_.value("amsgrad", false);
    if (name == "grad_avg") return options_.value("centered", false);
    return name == "momentum_buffer" && options_.value("momentum", 0.0) > 0;
  }

  const json& options_;
  const at::Tensor& parameter_;
};

}  // namespace

json encode_options(const OptimizerFields& fields, torch::optim::OptimizerOptions& options) {
  ReadOptionFields visitor;
  fields.visit(options, visitor);
  return visitor.options;
}

void decode_options(const OptimizerFields& fields, const json& encoded, torch::optim::OptimizerOptions& options) {
  WriteOptionFields visitor(encoded);
  fields.visit(options, visitor);
}

json capture_parameter_state(Capture& capture, const OptimizerFields& fields, const std::string& prefix,
                             torch::optim::OptimizerParamState& state) {
  CaptureStateFields visitor(capture, prefix);
  fields.visit(state, visitor);
  return std::move(visitor.value);
}

std::unique_ptr<torch::optim::OptimizerParamState> plan_parameter_state(RestorePlan& plan,
                                                                        const OptimizerFields& fields,
                                                                        const std::string& prefix, const json& encoded,
                                                                        c10::Device device) {
  auto state = fields.make_state();
  PlanStateFields visitor(plan, prefix, encoded, device);
  fields.visit(*state, visitor);
  return state;
}

void complete_parameter_state(const OptimizerFields& fields, const json& options, const at::Tensor& parameter,
                              torch::optim::OptimizerParamState& state) {
  CompleteStateFields visitor(options, parameter);
  fields.visit(state, visitor);
}

}  // namespace holdfast
