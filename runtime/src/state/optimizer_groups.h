// The groups of an optimizer: as the code gave them, as a checkpoint holds them, and as a restore sets them.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libtorch/optimizer_fields.h"
#include "snapshot/restore_plan.h"

namespace holdfast {

using ParameterNames = std::vector<std::string>;

/// The groups of an optimizer as the code gave them; saved groups are compared with these.
struct CodeGroups {
  const OptimizerFields* fields = nullptr;  // the kind of the optimizer that has the options
  std::vector<ParameterNames> parameters;
  std::vector<nlohmann::json> options;
  std::unordered_map<std::string, std::size_t> group_of;

  void add(ParameterNames names, nlohmann::json given) {
    for (const std::string& name : names) group_of.emplace(name, parameters.size());
    parameters.push_back(std::move(names));
    options.push_back(std::move(given));
  }
  /// Null if the code gave that parameter no options of this kind.
  const nlohmann::json* options_of(const std::string& parameter, const OptimizerFields& kind) const {
    const auto found = group_of.find(parameter);
    return fields == &kind && found != group_of.end() ? &options[found->second] : nullptr;
  }
};

/// The optimizer's groups in a checkpoint. Refers to the checkpoint's JSON.
struct SavedGroups {
  explicit SavedGroups(const nlohmann::json& value);
  bool knows(const std::string& parameter) const {
    return options_of.contains(parameter) || at_the_start.contains(parameter);
  }

  struct Options {
    const nlohmann::json& initial;
    const nlohmann::json& current;
  };
  std::map<std::string, Options> options_of;  // by parameter
  std::vector<ParameterNames> now;
  std::vector<ParameterNames> began;  // as the code gave them
  std::set<std::string> at_the_start;
};

/// A group after the restore.
struct RestoredGroup {
  std::vector<at::Tensor> tensors;
  ParameterNames names;        // in the program
  ParameterNames saved_names;  // in the checkpoint, if it knows them
  nlohmann::json options;

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

/// The groups after the restore. If the code's groups are those that the run began with, the checkpoint's groups are
/// restored, however they changed. Otherwise the code was edited: its groups stay, and groups that joined during the
/// run are restored. `fields` and `defaults`: the kind and the default options of the program's optimizer;
/// `state_prefix`: what precedes a parameter's name in the name of its state.
std::vector<RestoredGroup> plan_groups(const RestorePlan& plan, const SavedGroups& saved, const CodeGroups& code,
                                       const OptimizerFields& fields, const nlohmann::json& defaults,
                                       const std::string& state_prefix);

/// Sets the options that a group has after the restore. The rule, for each parameter: if the code's value is still the
/// one that the run began with, the checkpoint's current value is restored; if the code was edited, the code's value
/// wins, with a note. A group has one value for all of its parameters, so the group's own stays if theirs disagree.
/// `title`: the group's name in the notes.
void restore_options(const std::string& title, RestoredGroup& group, const SavedGroups& saved, const CodeGroups& code,
                     const OptimizerFields& fields, std::vector<std::string>& notes);

}  // namespace holdfast
