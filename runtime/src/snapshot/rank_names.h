// A rank's place among the ranks of its run, and the names of rank-local state: "generator.cpu" is rank 0's, and
// "generator.cpu@1" is rank 1's if it differs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "holdfast/storage/formats/manifest.h"

namespace holdfast {

struct RankPlace {
  int rank = 0;
  int world_size = 1;
  c10::Device device = c10::kCPU;
};

/// Rank 0's name is `name` itself.
std::string rank_name(const std::string& name, int rank);
/// The name without a rank.
std::string shared_name(const std::string& name);

/// The number of ranks that made a version.
int saved_world_size(const storage::Manifest& manifest);

/// The seed of a rank's own random numbers from `step` on; all ranks have different seeds.
std::uint64_t seed_of_rank(std::uint64_t seed, std::uint64_t step, int rank);

}  // namespace holdfast
