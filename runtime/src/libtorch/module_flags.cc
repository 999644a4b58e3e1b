#include "libtorch/module_flags.h"

#include <torch/nn/module.h>

#include <set>

#include "libtorch/module_tensors.h"
#include "libtorch/private_member.h"

namespace holdfast {
namespace {

using nlohmann::json;
using torch::nn::Module;

struct IsTraining {
  friend auto member_of(IsTraining);
};
template struct Expose<IsTraining, &Module::is_training_>;

void overlay(std::map<std::string, bool>& flags, const std::map<std::string, bool>& known) {
  for (auto& [name, flag] : flags) {
    if (const auto found = known.find(name); found != known.end()) flag = found->second;
  }
}

json names_set(const std::map<std::string, bool>& flags) {
  json names = json::array();
  for (const auto& [name, flag] : flags) {
    if (flag) names.push_back(name);
  }
  return names;
}

void decode(const json& names, std::map<std::string, bool>& flags) {
  const auto set = names.get<std::set<std::string>>();
  for (auto& [name, flag] : flags) flag = set.contains(name);
}

/// "net.fc.weight, net.fc.bias and 3 more"
std::string listed(const std::string& module, const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < kShown; ++i) {
    text += (i ? ", " : "") + (names[i].empty() ? module : module + "." + names[i]);
  }
  return names.size() > kShown ? text + " and " + std::to_string(names.size() - kShown) + " more" : text;
}

void restore(const std::string& module, const std::map<std::string, bool>& code,
             const std::map<std::string, bool>& initial, const std::map<std::string, bool>& saved, const char* set,
             const char* unset, std::map<std::string, bool>& flags, std::vector<std::string>& notes) {
  if (code == initial && code == saved) {
    flags = code;
    return;
  }
  std::vector<std::string> edited[2];
  for (const auto& [name, flag] : code) {
    const bool unedited = flag == initial.at(name);
    flags[name] = unedited ? saved.at(name) : flag;
    if (!unedited && flag != saved.at(name)) edited[flag ? 1 : 0].push_back(name);
  }
  for (const bool flag : {true, false}) {
    const auto& names = edited[flag ? 1 : 0];
    if (names.empty()) continue;
    notes.push_back(listed(module, names) + ": " + (flag ? set : unset) + " in the code, " + (flag ? unset : set) +
                    " when the checkpoint's run began: the code wins");
  }
}

}  // namespace

ModuleFlags flags_of(const Module& module) {
  ModuleFlags flags;
  each_parameter(module, [&](const std::string& name, const at::Tensor& parameter) {
    flags.frozen[name] = !parameter.requires_grad();
  });
  each_module(module, [&](const std::string& path, const Module& part) {
    flags.eval[path] = !(part.*member_of(IsTraining()));
  });
  return flags;
}

void set_flags(Module& module, const ModuleFlags& flags) {
  each_parameter(module, [&](const std::string& name, const at::Tensor& parameter) {
    const auto found = flags.frozen.find(name);
    if (found != flags.frozen.end() && parameter.is_leaf()) parameter.set_requires_grad(!found->second);
  });
  each_module(module, [&](const std::string& path, const Module& part) {
    const auto found = flags.eval.find(path);
    if (found != flags.eval.end()) const_cast<Module&>(part).*member_of(IsTraining()) = !found->second;
  });
}

ModuleFlags overlaid(ModuleFlags flags, const ModuleFlags& known) {
  overlay(flags.frozen, known.frozen);
  overlay(flags.eval, known.eval);
  return flags;
}

json encode(const ModuleFlags& flags) { return {{"frozen", names_set(flags.frozen)}, {"eval", names_set(flags.eval)}}; }

ModuleFlags decode_flags(const json& json, ModuleFlags like) {
  decode(json.at("frozen"), like.frozen);
  decode(json.at("eval"), like.eval);
  return like;
}

RestoredFlags restore_flags(const std::string& name, const ModuleFlags& code, const ModuleFlags& initial,
                            const ModuleFlags& saved) {
  RestoredFlags restored;
  restore(name, code.frozen, initial.frozen, saved.frozen, "frozen", "trained", restored.flags.frozen, restored.notes);
  restore(name, code.eval, initial.eval, saved.eval, "eval mode", "training mode", restored.flags.eval, restored.notes);
  return restored;
}

}  // namespace holdfast
