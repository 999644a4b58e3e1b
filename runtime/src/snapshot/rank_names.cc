#include "snapshot/rank_names.h"

#include "holdfast/storage/formats/ranks_of_run.h"
#include "splitmix64.h"

namespace holdfast {

std::string rank_name(const std::string& name, int rank) {
  return rank == 0 ? name : name + "@" + std::to_string(rank);
}

std::string shared_name(const std::string& name) {
  const std::size_t at = name.find_last_not_of("0123456789");
  const bool has_rank = at != std::string::npos && name[at] == '@' && at + 1 < name.size();
  return has_rank ? name.substr(0, at) : name;
}

int saved_world_size(const storage::Manifest& manifest) { return storage::ranks_of_run(manifest).value_or(1); }

std::uint64_t seed_of_rank(std::uint64_t seed, std::uint64_t step, int rank) {
  return splitmix64(splitmix64(splitmix64(seed) ^ step) ^ static_cast<std::uint64_t>(rank));
}

}  // namespace holdfast
