#include "state/tracked_optimizer.h"

#include <ATen/ops/zeros_like.h>
#include <c10/util/Type.h>
#include <torch/optim/optimizer.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/optim/device_scale.h"
#include "libtorch/optimizer_fields.h"
#include "state/stored_name.h"

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

/// LibTorch creates a parameter's state once, as the options then require. If options that were edited later require
/// more tensors, these begin as they would have: from zeros.
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

using Names = std::vector<std::string>;

/// The groups of an optimizer as the code gave them; saved groups are compared with these.
struct CodeGroups {
  const OptimizerFields* fields = nullptr;  // the kind of the optimizer that has the options
  std::vector<Names> parameters;
  std::vector<json> options;
  std::unordered_map<std::string, std::size_t> group_of;

  void add(Names names, json given) {
    for (const std::string& name : names) group_of.emplace(name, parameters.size());
    parameters.push_back(std::move(names));
    options.push_back(std::move(given));
  }
  /// Null if the code gave that parameter no options of this kind.
  const json* options_of(const std::string& parameter, const OptimizerFields& kind) const {
    const auto found = group_of.find(parameter);
    return fields == &kind && found != group_of.end() ? &options[found->second] : nullptr;
  }
};

/// The optimizer's groups in a checkpoint. Refers to the checkpoint's JSON.
struct SavedGroups {
  explicit SavedGroups(const json& value) {
    for (const json& group : value.at("groups")) {
      const auto others = group.find("initial_of");
      for (const std::string parameter : group.at("parameters")) {
        const bool is_other = others != group.end() && others->contains(parameter);
        options_of.emplace(parameter,
                           Options{is_other ? others->at(parameter) : group.at("initial"), group.at("current")});
      }
      now.push_back(group.at("parameters"));
    }
    began = value.contains("began") ? value.at("began").get<std::vector<Names>>() : now;
    for (const Names& group : began) at_the_start.insert(group.begin(), group.end());
  }
  bool knows(const std::string& parameter) const {
    return options_of.contains(parameter) || at_the_start.contains(parameter);
  }

  struct Options {
    const json& initial;
    const json& current;
  };
  std::map<std::string, Options> options_of;  // by parameter
  std::vector<Names> now;
  std::vector<Names> began;  // as the code gave them
  std::set<std::string> at_the_start;
};

class TrackedOptimizer : public TrackedItem {
 public:
  TrackedOptimizer(std::string name, ObjectReference<torch::optim::Optimizer> optimizer)
      : TrackedItem(std::move(name)), reference_(std::move(optimizer)) {
    (void)fields_now();
    for (std::size_t i = 0; i < groups(); ++i) when_tracked_.push_back(options(i));
  }

  const void* object() const override { return reference_.get(); }

  bool add_parameters(std::set<const void*>& all) const override {
    for (const auto& group : optimizer().param_groups()) {
      for (const at::Tensor& parameter : group.params()) all.insert(parameter.unsafeGetTensorImpl());
    }
    return true;
  }

  void begin(const TensorNames& names) override { code_ = groups_now(names); }

  void capture(Capture& capture) const override {
    const OptimizerFields& fields = fields_now();
    if (code_ && code_->fields->name() != std::string_view(fields.name())) {
      throw Error(StatusCode::invalid,
                  "optimizer '" + name() + "' was " + code_->fields->name() + " when the run began and is " +
                      fields.name() +
                      " now: a program that begins as this one did could not resume from such a version. Track both "
                      "optimizers from the start, each under a name of its own");
    }
    if (auto* scaled = dynamic_cast<TakesDeviceScale*>(&optimizer())) scaled->settle();
    json value = {{"kind", fields.name()}, {"groups", json::array()}, {"state", json::object()}};
    const std::vector<Parameter> all = parameters(capture.names());
    std::vector<Names> now(groups());
    for (const Parameter& parameter : all) now[parameter.group].push_back(parameter.name);
    for (std::size_t i = 0; i < now.size(); ++i) value["groups"].push_back(encode_group(fields, now[i], i));
    if (code_ && code_->parameters != now) value["began"] = code_->parameters;
    capture_state(capture, fields, all, value);
    capture.value(name(), std::move(value));
  }

  void plan(RestorePlan& plan) override {
    const OptimizerFields& fields = fields_now();
    (void)parameters(plan.names());  // refuses what could not be saved
    const auto saved = plan.need_value(name(), std::string("an optimizer, ") + fields.name());
    if (!saved) return;
    try {
      if (const std::string kind = saved->at("kind"); kind != fields.name()) {
        plan.differs(Difference::Kind::value, name(),
                     std::string("is ") + fields.name() + " in the program and " + kind + " in the checkpoint");
        ask_for_all_tensors(plan);
        return;
      }
      const SavedGroups saved_groups(*saved);
      // Once the run has begun, the optimizer's groups may differ from the code's.
      const CodeGroups code = code_ ? *code_ : groups_now(plan.names());
      std::vector<Group> groups = plan_groups(plan, saved_groups, code);
      require_forms(plan, groups);
      plan_state(plan, *saved, saved_groups, groups);
      plan_options(plan, saved_groups, code, std::move(groups));
    } catch (const json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "is an optimizer in the program and something else in the checkpoint");
    }
  }

 private:
  struct Parameter {
    const std::string& name;  // the first under which it is tracked; refers to the walk's
    std::size_t group;
    const at::Tensor& tensor;  // the optimizer's
  };

  // A group after the restore.
  struct Group {
    std::vector<at::Tensor> tensors;
    Names names;        // in the program
    Names saved_names;  // in the checkpoint, if it knows them
    json options;

    void add(const std::string& name, const std::string& saved_name, const at::Tensor& tensor) {
      names.push_back(name);
      saved_names.push_back(saved_name);
      tensors.push_back(tensor);
    }
    bool has(const std::vector<at::Tensor>& others) const {
      return std::equal(tensors.begin(), tensors.end(), others.begin(), others.end(),
                        [](const at::Tensor& a, const at::Tensor& b) { return a.is_same(b); });
    }
  };

  torch::optim::Optimizer& optimizer() const { return held_by(reference_, "optimizer", name()); }

  const OptimizerFields& fields_now() const {
    const torch::optim::Optimizer& now = optimizer();
    const OptimizerFields* fields = fields_of(now);
    if (fields) return *fields;
    throw Error(StatusCode::unsupported, "optimizer '" + name() + "' has the unsupported type " +
                                             c10::demangle(typeid(now).name()) +
                                             ": give it save(holdfast::State&) const and "
                                             "load(const holdfast::State&)");
  }

  // "state": {parameter: {field: value}, …} holds the fields that are not tensors; null if others have state and this
  // parameter has none. Usually all parameters have the same values: those of the first one are written once, as
  // "state_of_others", for all that are not listed. (Versions without "state_of_others" list every parameter that has a
  // state.)
  void capture_state(Capture& capture, const OptimizerFields& fields, const std::vector<Parameter>& all,
                     json& value) const {
    std::unordered_set<const std::string*> seen;
    seen.reserve(all.size());
    json& listed = value["state"];
    const json* others = nullptr;
    for (const auto& [name, group, tensor] : all) {
      if (!seen.insert(&name).second) continue;
      json own;
      if (const auto state = optimizer().state().find(tensor.unsafeGetTensorImpl());
          state != optimizer().state().end()) {
        CaptureStateFields visitor(capture, state_name(name) + ".");
        fields.visit(*state->second, visitor);
        own = std::move(visitor.value);
        if (others == nullptr) others = &(value["state_of_others"] = own);
      }
      if (others == nullptr || own != *others) listed[name] = std::move(own);
    }
    if (others == nullptr) listed = json::object();
  }

  std::size_t groups() const { return optimizer().param_groups().size(); }
  std::string state_name(const std::string& parameter) const { return name() + ".state." + parameter; }

  json options(std::size_t group) const {
    ReadOptionFields visitor;
    fields_now().visit(optimizer().param_groups()[group].options(), visitor);
    return visitor.options;
  }

  json default_options() const {
    ReadOptionFields visitor;
    fields_now().visit(optimizer().defaults(), visitor);
    return visitor.options;
  }

  CodeGroups groups_now(const TensorNames& names) const {
    CodeGroups now;
    now.fields = &fields_now();
    std::vector<Names> by_group(groups());
    for (const auto& [name, group, tensor] : parameters(names)) by_group[group].push_back(name);
    for (std::size_t i = 0; i < groups(); ++i) now.add(std::move(by_group[i]), options(i));
    return now;
  }

  // Before the run begins, the code's options are those that the optimizer had when it was tracked. A parameter that
  // joined later was given no options by the code; its current ones count as given.
  json encode_group(const OptimizerFields& fields, const Names& parameters, std::size_t group) const {
    const json current = options(group);
    json value = {{"parameters", parameters}, {"initial", current}, {"current", current}};
    if (!code_ && group < when_tracked_.size()) value["initial"] = when_tracked_[group];
    if (!code_) return value;
    if (code_->fields == &fields && group < code_->parameters.size() && code_->parameters[group] == parameters) {
      value["initial"] = code_->options[group];
      return value;
    }
    const json* of_group = nullptr;
    for (const std::string& parameter : parameters) {
      const json* given = code_->options_of(parameter, fields);
      if (given == nullptr) given = &current;
      if (of_group == nullptr) value["initial"] = *(of_group = given);
      if (given != of_group && *given != *of_group) value["initial_of"][parameter] = *given;
    }
    return value;
  }

  std::vector<Parameter> parameters(const TensorNames& names) const {
    std::vector<Parameter> found;
    for (std::size_t group = 0; group < groups(); ++group) {
      const auto& tensors = optimizer().param_groups()[group].params();
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::string* const known = names.name_of(tensors[i]);
        if (known == nullptr) {
          throw Error(StatusCode::invalid,
                      "optimizer '" + name() + "', group " + std::to_string(group) + ": parameter " +
                          std::to_string(i) + " (" + describe(tensors[i]) +
                          ") does not belong to a tracked module: track its module, or the tensor itself");
        }
        found.push_back({*known, group, tensors[i]});
      }
    }
    return found;
  }

  /// Reports an incompatible optimizer as one difference, instead of one for each of its tensors.
  void ask_for_all_tensors(RestorePlan& plan) const {
    const std::string prefix = name() + ".state.";
    for (const auto& entry : plan.manifest().tensors) {
      if (entry.name.starts_with(prefix)) plan.find_tensor(program_name(entry.name));
    }
  }

  void ask_for_tensors_of(RestorePlan& plan, const std::string& parameter) const {
    const std::string prefix = state_name(parameter) + ".";
    for (const auto& entry : plan.manifest().tensors) {
      if (entry.name.starts_with(prefix)) plan.find_tensor(program_name(entry.name));
    }
  }

  // If the code's groups are those that the run began with, the checkpoint's groups are restored, however they changed.
  // Otherwise the code was edited: its groups stay, and groups that joined during the run are restored.
  std::vector<Group> plan_groups(const RestorePlan& plan, const SavedGroups& saved, const CodeGroups& code) const {
    std::vector<Group> groups;
    std::vector<Names> saved_names;
    std::set<std::string> in_program;
    for (std::size_t i = 0; i < code.parameters.size(); ++i) {
      Group& group = groups.emplace_back();
      group.options = code.fields == &fields_now() ? code.options[i] : default_options();
      for (const std::string& name : code.parameters[i]) {
        const at::Tensor* tensor = plan.names().find(name);
        if (tensor == nullptr) continue;
        const auto aliases = plan.names().names_of(*tensor);
        const auto known =
            std::find_if(aliases.begin(), aliases.end(), [&](const auto& one) { return saved.knows(one); });
        group.add(name, known == aliases.end() ? name : *known, *tensor);
      }
      in_program.insert(group.saved_names.begin(), group.saved_names.end());
      saved_names.push_back(group.saved_names);
    }
    const auto are_tracked = [&](const Names& names) {
      return std::all_of(names.begin(), names.end(), [&](const auto& name) { return plan.names().find(name); });
    };
    if (saved_names == saved.began) {
      if (saved.now == saved.began || !std::all_of(saved.now.begin(), saved.now.end(), are_tracked)) return groups;
      groups.clear();
      for (const Names& names : saved.now) groups.push_back(group_of_checkpoint(plan, saved, names));
      return groups;
    }
    const bool may_join = std::string(fields_now().name()) != "LBFGS";  // which has one group
    for (const Names& names : saved.now) {
      const bool joined = std::none_of(names.begin(), names.end(), [&](const std::string& name) {
        return saved.at_the_start.contains(name) || in_program.contains(name) ||
               plan.allows_unexpected(state_name(name), name);
      });
      if (may_join && joined && !names.empty() && are_tracked(names)) {
        groups.push_back(group_of_checkpoint(plan, saved, names));
      }
    }
    return groups;
  }

  Group group_of_checkpoint(const RestorePlan& plan, const SavedGroups& saved, const Names& names) const {
    Group group;
    group.options = default_options();
    for (const std::string& name : names) {
      const at::Tensor& tensor = *plan.names().find(name);
      group.add(plan.names().names_of(tensor).front(), name, tensor);
      group.options.update(saved.options_of.at(name).current);
    }
    return group;
  }

  // A plain variable that takes the saved shape is assigned another tensor, which a group that joined would not hold.
  void require_forms(RestorePlan& plan, const std::vector<Group>& groups) const {
    for (const Group& group : groups) {
      for (std::size_t i = 0; i < group.tensors.size(); ++i) {
        const std::string& parameter = group.names[i];
        if (plan.is_parameter(group.tensors[i]) || plan.resizes(parameter) || plan.stays(parameter)) continue;
        if (const auto* entry = plan.find_tensor(parameter)) plan.matches(parameter, *entry, group.tensors[i]);
      }
    }
  }

  /// As capture_state() wrote it; null if the parameter had none.
  static const json* saved_state(const json& saved, const std::string& parameter) {
    auto found = saved.at("state").find(parameter);
    if (found != saved.at("state").end()) return found->is_null() ? nullptr : &*found;
    found = saved.find("state_of_others");
    return found == saved.end() ? nullptr : &*found;
  }

  void plan_state(RestorePlan& plan, const json& saved, const SavedGroups& saved_groups,
                  const std::vector<Group>& groups) {
    std::unordered_set<std::string> claimed;  // parameters of the checkpoint
    auto states = std::make_shared<std::vector<std::pair<void*, std::unique_ptr<OptimizerParamState>>>>();
    std::unordered_set<void*> seen;
    std::unordered_set<void*> kept;  // parameters whose state stays as the program made it

    for (const Group& group : groups) {
      for (std::size_t i = 0; i < group.tensors.size(); ++i) {
        const at::Tensor& tensor = group.tensors[i];
        const std::string& parameter = group.saved_names[i];
        void* const key = tensor.unsafeGetTensorImpl();
        if (!seen.insert(key).second) continue;
        if (!saved_groups.options_of.contains(parameter)) {
          plan.missing(state_name(parameter), "a parameter of its optimizer", parameter);
          kept.insert(key);
          continue;
        }
        claimed.insert(parameter);
        if (plan.stays(group.names[i])) {  // its saved state has another shape
          plan.fit.notes.push_back(state_name(parameter) + " is left unread, as " + parameter + " is");
          ask_for_tensors_of(plan, parameter);
          kept.insert(key);
          continue;
        }
        const json* const value = saved_state(saved, parameter);
        if (value == nullptr) continue;
        auto state = fields_now().make_state();
        PlanStateFields visitor(plan, state_name(parameter) + ".", *value, tensor.device());
        fields_now().visit(*state, visitor);
        states->emplace_back(key, std::move(state));
      }
    }
    for (const auto& [parameter, options] : saved_groups.options_of) {
      if (claimed.contains(parameter)) continue;
      plan.unexpected(state_name(parameter), "a parameter of its optimizer", parameter);
      ask_for_tensors_of(plan, parameter);
    }

    plan.apply([this, states, kept](std::vector<std::string>&) {
      auto& all = optimizer().state();
      for (auto it = all.begin(); it != all.end();) it = kept.contains(it->first) ? std::next(it) : all.erase(it);
      for (auto& [key, state] : *states) all[key] = std::move(state);
    });
  }

  void plan_options(RestorePlan& plan, const SavedGroups& saved, const CodeGroups& code, std::vector<Group> groups) {
    std::vector<std::string> notes;
    for (std::size_t i = 0; i < groups.size(); ++i) restore_options(i, groups[i], saved, code, notes);
    for (const Group& group : groups) {
      WriteOptionFields probe(group.options);  // throws on a wrong type, before anything changes
      fields_now().visit(*optimizer().defaults().clone(), probe);
    }
    plan.apply([this, groups = std::move(groups), code, notes](std::vector<std::string>& said) {
      set_groups(groups);
      for (const Group& group : groups) {
        for (const at::Tensor& parameter : group.tensors) {
          const auto state = optimizer().state().find(parameter.unsafeGetTensorImpl());
          if (state == optimizer().state().end()) continue;
          const at::Tensor values = parameter.detach();
          CompleteStateFields visitor(group.options, values);
          fields_now().visit(*state->second, visitor);
        }
      }
      code_ = code;
      said.insert(said.end(), notes.begin(), notes.end());
    });
  }

  // The rule, for each parameter: if the code's value still is what the run began with, the checkpoint's current value
  // is restored; if the code was edited, the code's value wins, with a note. A group has one value for all of its
  // parameters, so if theirs disagree the group's own stays.
  void restore_options(std::size_t index, Group& group, const SavedGroups& saved, const CodeGroups& code,
                       std::vector<std::string>& notes) const {
    struct Wanted {
      std::vector<std::pair<json, std::string>> values;  // and the first parameter that has it
      std::set<std::string> edits;
    };
    std::map<std::string, Wanted> wanted;  // by option
    std::set<std::tuple<const json*, const json*, const json*>> seen;
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      const auto found = saved.options_of.find(group.saved_names[i]);
      if (found == saved.options_of.end()) continue;
      const auto& [initial, current] = found->second;
      const json* const given = code.options_of(group.names[i], fields_now());
      if (!seen.emplace(given, &initial, &current).second) continue;
      for (const auto& [key, own] : group.options.items()) {
        if (!initial.contains(key) || !current.contains(key)) continue;
        const bool edited = given != nullptr && given->at(key) != initial.at(key);
        const json& value = edited ? given->at(key) : current.at(key);
        Wanted& all = wanted[key];
        if (edited && value != current.at(key)) {
          all.edits.insert("code says " + value.dump() + ", checkpoint started with " + initial.at(key).dump() +
                           " and stood at " + current.at(key).dump() + ": the code wins");
        }
        const bool is_new = std::none_of(all.values.begin(), all.values.end(),
                                         [&value = value](const auto& one) { return one.first == value; });
        if (is_new) all.values.emplace_back(value, group.names[i]);
      }
    }
    const std::string title = name() + " group " + std::to_string(index);
    if (seen.empty() && !group.names.empty()) {
      notes.push_back(title + " is not in the checkpoint: its options stay as the code gives them");
    }
    for (const auto& [key, all] : wanted) {
      if (all.values.size() == 1) {
        group.options[key] = all.values.front().first;
        for (const std::string& edit : all.edits) notes.push_back(title + " " + key + ": " + edit);
        continue;
      }
      std::string values;
      for (const auto& [value, parameter] : all.values) {
        values += (values.empty() ? "" : ", ") + value.dump() + " for " + parameter;
      }
      notes.push_back(title + " " + key + ": its parameters had different values (" + values + "): the group takes " +
                      group.options[key].dump());
    }
  }

  void set_groups(const std::vector<Group>& groups) {
    auto& present = optimizer().param_groups();
    std::vector<torch::optim::OptimizerParamGroup> wanted;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (i < present.size() && groups[i].has(present[i].params())) {
        wanted.push_back(std::move(present[i]));
      } else {
        wanted.emplace_back(groups[i].tensors, optimizer().defaults().clone());
      }
      WriteOptionFields visitor(groups[i].options);
      fields_now().visit(wanted.back().options(), visitor);
    }
    present = std::move(wanted);
  }

  const ObjectReference<torch::optim::Optimizer> reference_;
  std::vector<json> when_tracked_;  // each group's options
  std::optional<CodeGroups> code_;  // from begin() or a restore on
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_optimizer(std::string name,
                                                    ObjectReference<torch::optim::Optimizer> optimizer) {
  return std::make_unique<TrackedOptimizer>(std::move(name), std::move(optimizer));
}

}  // namespace holdfast
