#include "state/optimizer_groups.h"

#include <algorithm>
#include <tuple>

#include "tensors/tensor_names.h"

namespace holdfast {

using nlohmann::json;

SavedGroups::SavedGroups(const json& value) {
  for (const json& group : value.at("groups")) {
    const auto others = group.find("initial_of");
    for (const std::string parameter : group.at("parameters")) {
      const bool is_other = others != group.end() && others->contains(parameter);
      options_of.emplace(parameter,
                         Options{is_other ? others->at(parameter) : group.at("initial"), group.at("current")});
    }
    now.push_back(group.at("parameters"));
  }
  began = value.contains("began") ? value.at("began").get<std::vector<ParameterNames>>() : now;
  for (const ParameterNames& group : began) at_the_start.insert(group.begin(), group.end());
}

namespace {

RestoredGroup group_of_checkpoint(const RestorePlan& plan, const SavedGroups& saved, const json& defaults,
                                  const ParameterNames& names) {
  RestoredGroup group;
  group.options = defaults;
  for (const std::string& name : names) {
    const at::Tensor& tensor = *plan.names().find(name);
    group.add(plan.names().names_of(tensor).front(), name, tensor);
    group.options.update(saved.options_of.at(name).current);
  }
  return group;
}

}  // namespace

std::vector<RestoredGroup> plan_groups(const RestorePlan& plan, const SavedGroups& saved, const CodeGroups& code,
                                       const OptimizerFields& fields, const json& defaults,
                                       const std::string& state_prefix) {
  std::vector<RestoredGroup> groups;
  std::vector<ParameterNames> saved_names;
  std::set<std::string> in_program;
  for (std::size_t i = 0; i < code.parameters.size(); ++i) {
    RestoredGroup& group = groups.emplace_back();
    group.options = code.fields == &fields ? code.options[i] : defaults;
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
  const auto are_tracked = [&](const ParameterNames& names) {
    return std::all_of(names.begin(), names.end(), [&](const auto& name) { return plan.names().find(name); });
  };
  if (saved_names == saved.began) {
    if (saved.now == saved.began || !std::all_of(saved.now.begin(), saved.now.end(), are_tracked)) return groups;
    groups.clear();
    for (const ParameterNames& names : saved.now) groups.push_back(group_of_checkpoint(plan, saved, defaults, names));
    return groups;
  }
  const bool may_join = std::string(fields.name()) != "LBFGS";  // which has one group
  for (const ParameterNames& names : saved.now) {
    const bool joined = std::none_of(names.begin(), names.end(), [&](const std::string& name) {
      return saved.at_the_start.contains(name) || in_program.contains(name) ||
             plan.allows_unexpected(state_prefix + name, name);
    });
    if (may_join && joined && !names.empty() && are_tracked(names)) {
      groups.push_back(group_of_checkpoint(plan, saved, defaults, names));
    }
  }
  return groups;
}

void restore_options(const std::string& title, RestoredGroup& group, const SavedGroups& saved, const CodeGroups& code,
                     const OptimizerFields& fields, std::vector<std::string>& notes) {
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
    const json* const given = code.options_of(group.names[i], fields);
    if (!seen.emplace(given, &initial, &current).second) continue;
    for (const auto& [key, own] : group.options.items()) {
      if (!initial.contains(key) || !current.contains(key)) continue;
      const bool edited = given != nullptr && given->at(key) != initial.at(key);
      const json& value = edited ? given->at(key) : current.at(key);
      Wanted& all = wanted[key];
      if (edited && value != current.at(key)) {
        all.edits.insert(value.dump() + " in the code, but the checkpoint's run started with " +
                         initial.at(key).dump() + " and was saved with " + current.at(key).dump() + ": the code wins");
      }
      const bool is_new = std::none_of(all.values.begin(), all.values.end(),
                                       [&value = value](const auto& one) { return one.first == value; });
      if (is_new) all.values.emplace_back(value, group.names[i]);
    }
  }
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

}  // namespace holdfast
