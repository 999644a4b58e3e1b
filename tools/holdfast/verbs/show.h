// What holdfast show prints, as JSON and as text.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/storage/formats/ranks_of_run.h"
#include "inspect/checkpoint.h"
#include "inspect/target.h"
#include "inspect/tensor_stats.h"

namespace holdfast::tools {

/// One tensor of the listing; a tied name has no bytes of its own.
struct ShownTensor {
  std::string name;
  const storage::TensorEntry* tensor = nullptr;
  std::string tied_to;
  std::optional<TensorStats> stats;
};

/// What is shown. It refers to what was read.
struct Shown {
  const Checkpoint& checkpoint;
  const std::vector<storage::PassedOver>& passed_over;  // newer versions that cannot be loaded
  const std::vector<ShownTensor>& tensors;
};

nlohmann::ordered_json show_json(const Shown& shown);
/// `stats`: with columns for the tensors' statistics.
void show_text(const Shown& shown, bool stats);

/// How many ranks the run had that saved the version; if it is not recorded, how many have files.
inline int ranks_of(const storage::Manifest& manifest) {
  return storage::ranks_of_run(manifest).value_or(manifest.world_size);
}

}  // namespace holdfast::tools
