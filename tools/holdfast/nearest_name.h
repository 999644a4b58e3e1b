// The name that somebody probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::tools {

/// The name with the fewest edits (Levenshtein's distance) to `word`; empty where none comes near.
std::string nearest_name(std::string_view word, const std::vector<std::string>& names);

}  // namespace holdfast::tools
