// What a module's flags say: which parameters are frozen (take no gradient), and which submodules are in eval mode.
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
/// Names that the module does not have are passed over. Nobody's train() is called: a module that overrides it, as to
/// keep its normalisation in eval mode, gets what is said here.
void set_flags(torch::nn::Module& module, const ModuleFlags& flags);

/// `flags`, with what `known` says of the names that are in both.
ModuleFlags overlaid(ModuleFlags flags, const ModuleFlags& known);

/// {"frozen": ["fc.weight"], "eval": ["norm"]}: the names whose flag is set.
nlohmann::json encode(const ModuleFlags& flags);
/// The flags of the names in `like`. Throws nlohmann::json::exception where `json` is something else.
ModuleFlags decode_flags(const nlohmann::json& json, ModuleFlags like);

struct RestoredFlags {
  ModuleFlags flags;
  std::vector<std::string> notes;
};
/// A flag is restored where the code's is the one that the run began with; else the code's stays, with a note.
/// `name`: the module's, for the notes.
RestoredFlags restore_flags(const std::string& name, const ModuleFlags& code, const ModuleFlags& initial,
                            const ModuleFlags& saved);

}  // namespace holdfast
