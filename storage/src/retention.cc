#include "holdfast/storage/retention.h"

#include <algorithm>

namespace holdfast::storage {

RetentionPlan plan_retention(const History& history, const Retention& retention, const std::set<Uid>& pinned,
                             const std::set<Uid>& doubtful) {
  RetentionPlan plan;
  if (retention.keep_last == 0) return plan;
  std::size_t kept = 0;
  const auto& versions = history.versions();
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (kept < retention.keep_last) {
      // A version that an earlier session had begun to drop is no version to rely on.
      if (!doubtful.contains(version->uid) && !history.is_dropped(version->uid)) ++kept;
    } else if (!pinned.contains(version->uid)) {
      plan.drop.push_back(version->uid);
    }
  }
  std::reverse(plan.drop.begin(), plan.drop.end());
  plan.reason = "keep the last " + std::to_string(retention.keep_last);
  return plan;
}

}  // namespace holdfast::storage
