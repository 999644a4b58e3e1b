// Which versions to keep: a pure plan over the journal. Carried out by RunWriter::prune.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "holdfast/storage/history.h"

namespace holdfast::storage {

struct Retention {
  std::size_t keep_last = 3;  // at least 1; 0 means keep all
};

struct RetentionPlan {
  std::vector<Uid> drop;  // oldest first
  std::string reason;     // one sentence
};

/// Keeps the newest `keep_last` versions in the order of takeovers and everything in `pinned` (this session's base,
/// saves in flight). Versions in `doubtful` (known bad, or published but not proven durable) do not count as kept: the
/// plan never leaves fewer than one version that is not doubtful.
RetentionPlan plan_retention(const History& history, const Retention& retention, const std::set<Uid>& pinned,
                             const std::set<Uid>& doubtful);

}  // namespace holdfast::storage
