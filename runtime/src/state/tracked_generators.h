// Tracked random generators: the program's own, and those of LibTorch.
#pragma once

#include <ATen/core/Generator.h>

#include <memory>
#include <string>

#include "snapshot/rank_names.h"
#include "state/tracked_item.h"

namespace holdfast {

std::unique_ptr<TrackedItem> make_tracked_generator(std::string name, at::Generator& generator);

/// The process's own generators: "generator.cpu" and, for each device, "generator.cuda0", …. If a device is missing on
/// either side, its state is noted and the checkpoint stays compatible. `place` must outlive the item.
std::unique_ptr<TrackedItem> make_default_generators(const RankPlace& place);

}  // namespace holdfast
