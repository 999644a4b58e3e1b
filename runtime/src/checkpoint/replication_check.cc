#include "checkpoint/replication_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "checkpoint/state_digest.h"
#include "holdfast/runtime/error.h"

namespace holdfast {

void require_alike(Group& group, const Snapshot& captured, Group::Site site, const std::string& when,
                   const std::string& remedy) {
  if (group.world_size() == 1) return;
  // One digest shows that all are alike; only on a difference are the tensors compared one by one.
  std::map<std::string, std::string> digests;
  for (const storage::TensorSource& source : captured.tensors) {
    if (!captured.may_differ.contains(source.name)) digests[source.name] = digest_text(source);
  }
  const auto summary = group.compare("the check of parameters", "", digest_text(nlohmann::json(digests)), site);
  if (std::all_of(summary.begin(), summary.end(), [&](const auto& one) { return one == summary[0]; })) return;
  const auto all = group.all_gather(digests, site);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    for (const auto& [name, digest] : all[0]) {
      const auto found = all[rank].find(name);
      if (found != all[rank].end() && found->second == digest) continue;
      throw Error(storage::StatusCode::invalid,
                  found == all[rank].end()
                      ? fmt::format("{} is tracked on rank 0 and not on rank {}: every rank must build the same model",
                                    name, rank)
                      : fmt::format("{} has other values on rank {} than on rank 0 {}: {}", name, rank, when, remedy));
    }
    for (const auto& [name, digest] : all[rank]) {
      if (!all[0].contains(name)) {
        throw Error(storage::StatusCode::invalid,
                    fmt::format("{} is tracked on rank {} and not on rank 0: every rank must build the same model",
                                name, rank));
      }
    }
  }
}

}  // namespace holdfast
