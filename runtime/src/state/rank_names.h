// Where a rank stands among the ranks of its run, and the names of what each of them holds for itself: "generator.cpu"
// is rank 0's, "generator.cpu@1" rank 1's where it differs.
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

/// Rank 0's is the name itself.
std::string rank_name(const std::string& name, int rank);
/// The name without a rank.
std::string shared_name(const std::string& name);

/// How many ranks made a version.
int saved_world_size(const storage::Manifest& manifest);

/// The seed of what each rank draws for itself from `step` on; no two of them are alike.
std::uint64_t seed_of_rank(std::uint64_t seed, std::uint64_t step, int rank);

}  // namespace holdfast
