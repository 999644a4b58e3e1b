#include "snapshot/compatibility.h"

#include <fnmatch.h>

#include <algorithm>

namespace holdfast {
namespace {

using Kind = Difference::Kind;

constexpr std::size_t kPatterns = 3;               // patterns of each option in a message
constexpr std::size_t kShownOfAnotherProgram = 4;  // differences, if no name is in both

std::string parent(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

/// "--holdfast.allow-missing 'net.head.*'", for the first of these differences that an option allows.
std::string option_for(const std::vector<Difference>& differences, const char* option, Kind kind, Kind or_kind) {
  std::vector<std::string> names, patterns;
  for (const Difference& difference : differences) {
    if (difference.kind == kind || difference.kind == or_kind) names.push_back(difference.name);
  }
  for (const std::string& name : names) {
    // A parameter's pattern also allows its optimizer state.
    const std::size_t state = name.find(".state.");
    const std::string parameter = state == std::string::npos ? name : name.substr(state + 7);
    const bool is_allowed = std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return matches(pattern, name) || matches(pattern, parameter);
    });
    if (is_allowed || patterns.size() == kPatterns) continue;
    const std::string above = parent(name);
    const auto siblings =
        std::count_if(names.begin(), names.end(), [&](const std::string& other) { return parent(other) == above; });
    patterns.push_back(siblings > 1 && !above.empty() ? above + ".*" : name);
  }
  std::string text;
  for (const std::string& pattern : patterns) text += std::string(" --holdfast.") + option + " '" + pattern + "'";
  return text;
}

/// The distinct values of a field, in order: "a, b, …".
std::string joined(const std::vector<Difference>& differences, std::string Difference::*field) {
  std::vector<std::string> all;
  for (const Difference& difference : differences) {
    const std::string& text = difference.*field;
    if (!text.empty() && std::find(all.begin(), all.end(), text) == all.end()) all.push_back(text);
  }
  std::string text;
  for (std::size_t i = 0; i < all.size() && i <= kPatterns; ++i) {
    text += (i ? ", " : "") + (i < kPatterns ? all[i] : "…");
  }
  return text;
}

/// What to change in a program that changes its tensors while it trains.
std::string changes(const std::vector<Difference>& differences) {
  std::string text;
  if (const std::string calls = joined(differences, &Difference::track_as); !calls.empty()) {
    text += " If the program changes shapes or dtypes while it trains, write " + calls + ".";
  }
  if (const std::string modules = joined(differences, &Difference::rebuild); !modules.empty()) {
    text += " A restore does not add or remove layers of a resizable module (" + modules +
            "): before the loop begins, give it the layers that it had when it was saved.";
  }
  return text;
}

}  // namespace

std::string Compatibility::message(std::size_t limit) const {
  if (ok()) return {};
  const std::size_t count = differences.size();
  std::string text = "checkpoint " + version + " does not fit the program: " + std::to_string(count) +
                     (count == 1 ? " difference" : " differences");
  const bool is_of_another = !has_common_names && count > kShownOfAnotherProgram;
  if (is_of_another) {
    limit = std::min(limit, kShownOfAnotherProgram);
    text +=
        "\n  the checkpoint and the program have no name in common: was the run made by another program? Give this one "
        "a run of its own (--holdfast.run NAME)";
  }
  for (std::size_t i = 0; i < count && i < limit; ++i) text += "\n  " + differences[i].what;
  if (count > limit) text += "\n  … and " + std::to_string(count - limit) + " more";
  text +=
      "\nNothing was changed. Use the program that made this checkpoint, or choose another version "
      "(--holdfast.from) or run (--holdfast.run).";
  text += changes(differences);
  const bool can_be_allowed =
      std::none_of(differences.begin(), differences.end(), [](const auto& one) { return one.kind == Kind::value; });
  if (!can_be_allowed || is_of_another) return text;
  const std::string options = option_for(differences, "allow-missing", Kind::missing, Kind::missing) +
                              option_for(differences, "allow-unexpected", Kind::unexpected, Kind::unexpected) +
                              option_for(differences, "allow-mismatch", Kind::shape, Kind::dtype);
  return text + " To load the rest, add" + options;
}

}  // namespace holdfast
