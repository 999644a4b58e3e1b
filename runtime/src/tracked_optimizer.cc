#include "tracked_optimizer.h"

#include <ATen/ops/zeros_like.h>
#include <c10/util/Type.h>
#include <torch/optim/optimizer.h>

#include <algorithm>
#include <typeinfo>

#include "holdfast/runtime/device_scale.h"
#include "holdfast/runtime/error.h"
#include "optimizer_fields.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;
using torch::optim::OptimizerParamState;

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

/// Fields that are not tensors are handled alike in state and options.
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

/// Fills a new state object: scalars at once, tensors by steps that run after they were read.
class PlanStateFields : public ScalarFields<PlanStateFields> {
 public:
  PlanStateFields(Plan& plan, std::string prefix, const json& value, at::Device device)
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
    auto strides = value_.value(name + ".strides", std::vector<std::int64_t>());
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

  Plan& plan_;
  std::string prefix_;
  const json& value_;
  at::Device device_;
};

/// LibTorch makes a parameter's state once, with what the options ask for then. What options that were edited since ask
/// for besides begins as it would have: from zeros.
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

class TrackedOptimizer : public TrackedItem {
 public:
  TrackedOptimizer(std::string name, ObjectReference<torch::optim::Optimizer> optimizer)
      : TrackedItem(std::move(name)), reference_(std::move(optimizer)) {
    take_code();
  }

  const void* object() const override { return reference_.get(); }

  void begin(const TensorNames&) override {
    take_code();
    begun_ = true;
  }

  void capture(Capture& capture) const override {
    const OptimizerFields& fields = fields_now();
    if (auto* scaled = dynamic_cast<TakesDeviceScale*>(&optimizer())) scaled->settle();
    json value = {{"kind", fields.name()}, {"groups", json::array()}, {"state", json::object()}};
    for (std::size_t i = 0; i < groups(); ++i) {
      const json current = options(i);
      value["groups"].push_back(
          {{"parameters", json::array()}, {"initial", code_of(i).value_or(current)}, {"current", current}});
    }
    for (const auto& [name, group, tensor] : parameters(capture.names())) {
      value["groups"][group]["parameters"].push_back(name);
      const auto state = optimizer().state().find(tensor.unsafeGetTensorImpl());
      if (state == optimizer().state().end() || value["state"].contains(name)) continue;
      CaptureStateFields visitor(capture, state_name(name) + ".");
      fields.visit(*state->second, visitor);
      value["state"][name] = std::move(visitor.value);
    }
    capture.value(name(), value);
  }

  void plan(Plan& plan) override {
    const OptimizerFields& fields = fields_now();
    const auto program = parameters(plan.names());
    const auto saved = plan.need_value(name(), std::string("an optimizer, ") + fields.name());
    if (!saved) return;
    try {
      if (const std::string kind = saved->at("kind"); kind != fields.name()) {
        plan.differs(Difference::Kind::value, name(),
                     std::string("is ") + fields.name() + " in the program and " + kind + " in the checkpoint");
        ask_for_all_tensors(plan);
        return;
      }
      plan_state(plan, *saved, program);
      plan_options(plan, *saved);
    } catch (const json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "is an optimizer in the program and something else in the checkpoint");
    }
  }

 private:
  struct Parameter {
    std::string name;  // the first under which it is tracked
    std::size_t group;
    at::Tensor tensor;
  };

  torch::optim::Optimizer& optimizer() const { return held_by(reference_, "optimizer", name()); }

  const OptimizerFields& fields_now() const {
    const torch::optim::Optimizer& now = optimizer();
    const OptimizerFields* fields = fields_of(now);
    if (fields) return *fields;
    throw Error(StatusCode::unsupported,
                "optimizer '" + name() + "' is a " + c10::demangle(typeid(now).name()) +
                    ", whose state only its author knows: give it save(holdfast::State&) const and "
                    "load(const holdfast::State&)");
  }

  void take_code() {
    code_fields_ = &fields_now();
    code_.clear();
    for (std::size_t i = 0; i < groups(); ++i) code_.push_back(options(i));
  }

  // What the code gave a group when the run began, where it did and to this kind of optimizer.
  std::optional<json> code_of(std::size_t group) const {
    if (code_fields_ != &fields_now() || group >= code_.size()) return {};
    return code_[group];
  }

  std::size_t groups() const { return optimizer().param_groups().size(); }
  std::string state_name(const std::string& parameter) const { return name() + ".state." + parameter; }

  json options(std::size_t group) const {
    ReadOptionFields visitor;
    fields_now().visit(optimizer().param_groups()[group].options(), visitor);
    return visitor.options;
  }

  std::vector<Parameter> parameters(const TensorNames& names) const {
    std::vector<Parameter> found;
    for (std::size_t group = 0; group < groups(); ++group) {
      const auto& tensors = optimizer().param_groups()[group].params();
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        const auto known = names.names_of(tensors[i]);
        if (known.empty()) {
          throw Error(StatusCode::invalid, "optimizer '" + name() + "', group " + std::to_string(group) +
                                               ": parameter " + std::to_string(i) + " (" + describe(tensors[i]) +
                                               ") is in no tracked module: track its module, or the tensor itself");
        }
        found.push_back({known.front(), group, tensors[i]});
      }
    }
    return found;
  }

  /// An optimizer that does not fit is one difference, not one for each of its tensors.
  void ask_for_all_tensors(Plan& plan) const {
    const std::string prefix = name() + ".state.";
    for (const auto& entry : plan.manifest().tensors) {
      if (entry.name.starts_with(prefix)) plan.find_tensor(entry.name);
    }
  }

  void ask_for_tensors_of(Plan& plan, const std::string& parameter) const {
    const std::string prefix = state_name(parameter) + ".";
    for (const auto& entry : plan.manifest().tensors) {
      if (entry.name.starts_with(prefix)) plan.find_tensor(entry.name);
    }
  }

  void plan_state(Plan& plan, const json& saved, const std::vector<Parameter>& program) {
    std::set<std::string> left;  // the checkpoint's parameters that the program has not claimed yet
    for (const json& group : saved.at("groups")) {
      for (const std::string parameter : group.at("parameters")) left.insert(parameter);
    }
    const std::set<std::string> known = left;
    auto states = std::make_shared<std::vector<std::pair<void*, std::unique_ptr<OptimizerParamState>>>>();
    std::set<void*> seen;
    std::set<void*> kept;  // new in the program, and allowed to be

    for (const Parameter& parameter : program) {
      void* const key = parameter.tensor.unsafeGetTensorImpl();
      if (!seen.insert(key).second) continue;
      const auto names = plan.names().names_of(parameter.tensor);
      const auto found =
          std::find_if(names.begin(), names.end(), [&](const auto& name) { return known.contains(name); });
      if (found == names.end()) {
        plan.missing(state_name(parameter.name), "a parameter of its optimizer", parameter.name);
        kept.insert(key);
        continue;
      }
      left.erase(*found);
      const auto value = saved.at("state").find(*found);
      if (value == saved.at("state").end()) continue;
      auto state = fields_now().make_state();
      PlanStateFields visitor(plan, state_name(*found) + ".", *value, parameter.tensor.device());
      fields_now().visit(*state, visitor);
      states->emplace_back(key, std::move(state));
    }
    for (const std::string& parameter : left) {
      plan.unexpected(state_name(parameter), "a parameter of its optimizer", parameter);
      ask_for_tensors_of(plan, parameter);
    }

    plan.apply([this, states, kept](std::vector<std::string>&) {
      auto& all = optimizer().state();
      for (auto it = all.begin(); it != all.end();) it = kept.contains(it->first) ? std::next(it) : all.erase(it);
      for (auto& [key, state] : *states) all[key] = std::move(state);
    });
  }

  // The rule: where the code's value still is what the run started with, the checkpoint's current value is restored;
  // where somebody edited the code, the code wins, and that is said.
  void plan_options(Plan& plan, const json& saved) {
    const json& saved_groups = saved.at("groups");
    std::vector<json> code;
    std::vector<json> wanted;
    std::vector<std::string> notes;
    for (std::size_t i = 0; i < groups(); ++i) {
      // Once the run has begun, what the optimizer holds is no more the code's word.
      code.push_back(begun_ ? code_of(i).value_or(options(i)) : options(i));
      wanted.push_back(code[i]);
      const std::string group = name() + " group " + std::to_string(i);
      if (i >= saved_groups.size()) {
        notes.push_back(group + " is not in the checkpoint: its options stay as the code gives them");
        continue;
      }
      const json& initial = saved_groups[i].at("initial");
      const json& current = saved_groups[i].at("current");
      for (const auto& [key, value] : code[i].items()) {
        if (!initial.contains(key) || !current.contains(key)) continue;
        if (value == initial.at(key)) {
          wanted[i][key] = current.at(key);
        } else if (value != current.at(key)) {
          notes.push_back(group + " " + key + ": code says " + value.dump() + ", checkpoint started with " +
                          initial.at(key).dump() + " and stood at " + current.at(key).dump() + ": the code wins");
        }
      }
      WriteOptionFields probe(wanted[i]);  // throws on a wrong type, before anything changes
      fields_now().visit(*optimizer().param_groups()[i].options().clone(), probe);
    }
    if (saved_groups.size() > groups()) {
      notes.push_back(name() + " has " + std::to_string(groups()) + " groups in the program and " +
                      std::to_string(saved_groups.size()) +
                      " in the checkpoint: the options of the others are left unread");
    }
    plan.apply([this, code, wanted, notes](std::vector<std::string>& said) {
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        WriteOptionFields visitor(wanted[i]);
        fields_now().visit(optimizer().param_groups()[i].options(), visitor);
      }
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        for (const at::Tensor& parameter : optimizer().param_groups()[i].params()) {
          const auto state = optimizer().state().find(parameter.unsafeGetTensorImpl());
          if (state == optimizer().state().end()) continue;
          const at::Tensor values = parameter.detach();
          CompleteStateFields visitor(wanted[i], values);
          fields_now().visit(*state->second, visitor);
        }
      }
      code_ = code;
      code_fields_ = &fields_now();
      begun_ = true;
      said.insert(said.end(), notes.begin(), notes.end());
    });
  }

  const ObjectReference<torch::optim::Optimizer> reference_;
  const OptimizerFields* code_fields_ = nullptr;
  std::vector<json> code_;  // each group's options as the code gave them
  bool begun_ = false;      // by begin() or a restore
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_optimizer(std::string name,
                                                    ObjectReference<torch::optim::Optimizer> optimizer) {
  return std::make_unique<TrackedOptimizer>(std::move(name), std::move(optimizer));
}

}  // namespace holdfast
