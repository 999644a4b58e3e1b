#include "holdfast/storage/text/nearest_name.h"

#include <algorithm>
#include <numeric>

namespace holdfast::storage {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

NearestName nearest_name(std::string_view word, const std::vector<std::string>& names) {
  NearestName nearest{names.front(), edit_distance(word, names.front())};
  for (const auto& name : names) {
    const auto distance = edit_distance(word, name);
    if (distance < nearest.distance) nearest = {name, distance};
  }
  return nearest;
}

std::string meant_name(std::string_view word, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  auto [name, distance] = nearest_name(word, names);
  const bool near = distance <= std::max<std::size_t>(2, word.size() / 3);
  // As many edits as characters means that the names have nothing in common.
  return near && distance < std::max(word.size(), name.size()) ? name : std::string();
}

}  // namespace holdfast::storage
