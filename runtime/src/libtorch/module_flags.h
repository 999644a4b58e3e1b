// A module's flags: which parameters are frozen (take no gradient), and which submodules are in eval mode.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace torch::nn {
class Module;
}

namespace holdfast {

/// By name within the module; the module itself is "".
struct ModuleFlags {
  std::map<std::string, bool> frozen;
  std::map<std::string, bool> eval;

  bool operator==(const ModuleFlags&) const = default;
};

ModuleFlags flags_of(const torch::nn::Module& module);
/// Ignores names that the module does not have. Does not call train(): a module that overrides it, as to keep its
/// normalisation in eval mode, also gets these flags.
void set_flags(torch::nn::Module& module, const ModuleFlags& flags);

/// `flags`, with the values of `known` for the names that are in both.
ModuleFlags overlaid(ModuleFlags flags, const ModuleFlags& known);

/// {"frozen": ["fc.weight"], "eval": ["norm"]}: the names whose flag is set.
nlohmann::json encode(const ModuleFlags& flags);
/// The flags of the names in `like`. Throws nlohmann::json::exception if `json` has another form.
ModuleFlags decode_flags(const nlohmann::json& json, ModuleFlags like);

struct RestoredFlags {
  ModuleFlags flags;
  std::vector<std::string> notes;
};
/// A flag is restored if the code's is the one that the run began with; otherwise the code's stays, with a note.
/// `name`: the module's, for the notes.
RestoredFlags restore_flags(const std::string& name, const ModuleFlags& code, const ModuleFlags& initial,
                            const ModuleFlags& saved);

}  // namespace holdfast
