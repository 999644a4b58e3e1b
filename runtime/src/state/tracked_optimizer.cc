#include "state/tracked_optimizer.h"

#include <c10/util/Type.h>
#include <torch/optim/optimizer.h>

#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <typeinfo>
#include <unordered_set>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/optim/device_scale.h"
#include "libtorch/optimizer_fields.h"
#include "snapshot/stored_name.h"
#include "state/optimizer_encoding.h"
#include "state/optimizer_groups.h"

namespace holdfast {
namespace {

using nlohmann::json;
using storage::StatusCode;
using torch::optim::OptimizerParamState;

class TrackedOptimizer : public TrackedItem {
 public:
  TrackedOptimizer(std::string name, detail::ObjectReference<torch::optim::Optimizer> optimizer)
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
    std::vector<ParameterNames> now(groups());
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
      std::vector<RestoredGroup> groups =
          plan_groups(plan, saved_groups, code, fields, encode_options(fields, optimizer().defaults()), state_name(""));
      require_forms(plan, groups);
      plan_state(plan, *saved, saved_groups, groups);
      plan_options(plan, saved_groups, code, std::move(groups));
    } catch (const json::exception&) {
      plan.differs(Difference::Kind::value, name(),
                   "is an optimizer in the program, but another kind of object in the checkpoint");
    }
  }

 private:
  struct Parameter {
    const std::string& name;  // the first under which it is tracked; refers to the walk's
    std::size_t group;
    const at::Tensor& tensor;  // the optimizer's
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
        own = capture_parameter_state(capture, fields, state_name(name) + ".", *state->second);
        if (others == nullptr) others = &(value["state_of_others"] = own);
      }
      if (others == nullptr || own != *others) listed[name] = std::move(own);
    }
    if (others == nullptr) listed = json::object();
  }

  std::size_t groups() const { return optimizer().param_groups().size(); }
  std::string state_name(const std::string& parameter) const { return name() + ".state." + parameter; }

  json options(std::size_t group) const {
    return encode_options(fields_now(), optimizer().param_groups()[group].options());
  }

  CodeGroups groups_now(const TensorNames& names) const {
    CodeGroups now;
    now.fields = &fields_now();
    std::vector<ParameterNames> by_group(groups());
    for (const auto& [name, group, tensor] : parameters(names)) by_group[group].push_back(name);
    for (std::size_t i = 0; i < groups(); ++i) now.add(std::move(by_group[i]), options(i));
    return now;
  }

  // Before the run begins, the code's options are those that the optimizer had when it was tracked. A parameter that
  // joined later was given no options by the code; its current ones count as given.
  json encode_group(const OptimizerFields& fields, const ParameterNames& parameters, std::size_t group) const {
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

  // A plain variable that takes the saved shape is assigned another tensor, which a group that joined would not hold.
  void require_forms(RestorePlan& plan, const std::vector<RestoredGroup>& groups) const {
    for (const RestoredGroup& group : groups) {
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
                  const std::vector<RestoredGroup>& groups) {
    std::unordered_set<std::string> claimed;  // parameters of the checkpoint
    auto states = std::make_shared<std::vector<std::pair<void*, std::unique_ptr<OptimizerParamState>>>>();
    std::unordered_set<void*> seen;
    std::unordered_set<void*> kept;  // parameters whose state stays as the program made it

    for (const RestoredGroup& group : groups) {
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
        states->emplace_back(
            key, plan_parameter_state(plan, fields_now(), state_name(parameter) + ".", *value, tensor.device()));
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

  void plan_options(RestorePlan& plan, const SavedGroups& saved, const CodeGroups& code,
                    std::vector<RestoredGroup> groups) {
    std::vector<std::string> notes;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      restore_options(name() + " group " + std::to_string(i), groups[i], saved, code, fields_now(), notes);
    }
    for (const RestoredGroup& group : groups) {
      // Throws for a wrong type, before anything changes.
      decode_options(fields_now(), group.options, *optimizer().defaults().clone());
    }
    plan.apply([this, groups = std::move(groups), code, notes](std::vector<std::string>& said) {
      set_groups(groups);
      for (const RestoredGroup& group : groups) {
        for (const at::Tensor& parameter : group.tensors) {
          const auto state = optimizer().state().find(parameter.unsafeGetTensorImpl());
          if (state == optimizer().state().end()) continue;
          const at::Tensor values = parameter.detach();
          complete_parameter_state(fields_now(), group.options, values, *state->second);
        }
      }
      code_ = code;
      said.insert(said.end(), notes.begin(), notes.end());
    });
  }

  void set_groups(const std::vector<RestoredGroup>& groups) {
    auto& present = optimizer().param_groups();
    std::vector<torch::optim::OptimizerParamGroup> wanted;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (i < present.size() && groups[i].has(present[i].params())) {
        wanted.push_back(std::move(present[i]));
      } else {
        wanted.emplace_back(groups[i].tensors, optimizer().defaults().clone());
      }
      decode_options(fields_now(), groups[i].options, wanted.back().options());
    }
    present = std::move(wanted);
  }

  const detail::ObjectReference<torch::optim::Optimizer> reference_;
  std::vector<json> when_tracked_;  // each group's options
  std::optional<CodeGroups> code_;  // from begin() or a restore on
};

}  // namespace

std::unique_ptr<TrackedItem> make_tracked_optimizer(std::string name,
                                                    detail::ObjectReference<torch::optim::Optimizer> optimizer) {
  return std::make_unique<TrackedOptimizer>(std::move(name), std::move(optimizer));
}

}  // namespace holdfast
