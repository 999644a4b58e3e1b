// The name that somebody probably meant.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace holdfast {

/// Insertions, deletions and replacements of one character between two words (Levenshtein's distance).
std::size_t edit_distance(std::string_view a, std::string_view b);

struct NearestName {
  std::string_view name;
  std::size_t distance = 0;
};

/// REQUIRES: at least one name.
NearestName nearest_name(std::string_view word, const std::vector<std::string_view>& names);

}  // namespace holdfast
