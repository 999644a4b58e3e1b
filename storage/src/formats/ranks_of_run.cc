#include "holdfast/storage/formats/ranks_of_run.h"

namespace holdfast::storage {

std::optional<int> ranks_of_run(const Manifest& manifest) {
  const nlohmann::json::json_pointer where("/environment/world_size");
  if (!manifest.made_by.contains(where)) return std::nullopt;
  const auto& ranks = manifest.made_by.at(where);
  if (!ranks.is_number_integer() || ranks.get<int>() < 1) return std::nullopt;
  return ranks.get<int>();
}

}  // namespace holdfast::storage
