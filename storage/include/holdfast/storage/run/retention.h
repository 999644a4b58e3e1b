// Which versions to keep: a pure plan over the journal. RunWriter::prune carries it out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/run/history.h"

namespace holdfast::storage {

struct Retention {
  std::size_t keep_last = 3;  // at least 1; 0 means keep all
};

struct RetentionPlan {
  std::vector<Uid> drop;                          // oldest first
  std::string reason;                             // one sentence
  std::optional<Uid> kept_finite = std::nullopt;  // kept beyond `keep_last` because its tensors are finite
};

/// Keeps the newest `keep_last` versions in the order of takeovers, everything in `pinned` (this session's base, saves
/// in flight), and what a session left behind when the run was continued in two places apart (OpenEntry::left_behind).
/// Versions in `doubtful` (known bad, or published but not proven durable) do not count as kept: the plan always leaves
/// at least one version that is not doubtful.
///
/// `non_finite(uid)` returns how many numbers of a version's tensors are NaN or infinite; it is called only if the
/// answer matters. If all versions that would be kept have some, the newest of those with the fewest is also kept: NaN
/// must not push out the last usable version. "The fewest" rather than "none", because a tensor may hold infinities on
/// purpose, such as an attention mask.
RetentionPlan plan_retention(const History& history, const Retention& retention, const std::set<Uid>& pinned,
                             const std::set<Uid>& doubtful, const std::function<std::uint64_t(const Uid&)>& non_finite);

}  // namespace holdfast::storage
