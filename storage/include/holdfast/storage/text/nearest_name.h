// The existing name that the user probably meant, for error messages about an unknown name.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::storage {

struct NearestName {
  std::string name;
  /// Insertions, deletions and replacements of one character (Levenshtein's distance).
  std::size_t distance = 0;
};

/// REQUIRES: at least one name.
NearestName nearest_name(std::string_view word, const std::vector<std::string>& names);

/// The nearest name if it is near enough to have been meant; empty otherwise.
std::string meant_name(std::string_view word, const std::vector<std::string>& names);

}  // namespace holdfast::storage
