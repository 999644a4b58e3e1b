#include "holdfast/storage/run/retention.h"

#include <algorithm>
#include <limits>

namespace holdfast::storage {
namespace {

/// The newest of the versions with the fewest non-finite numbers, and that count; `newest_first` is not empty.
std::pair<Uid, std::uint64_t> fewest(const std::vector<Uid>& newest_first,
                                     const std::function<std::uint64_t(const Uid&)>& non_finite) {
  std::pair<Uid, std::uint64_t> best{newest_first.front(), std::numeric_limits<std::uint64_t>::max()};
  for (const Uid& uid : newest_first) {
    if (const std::uint64_t count = non_finite(uid); count < best.second) best = {uid, count};
    if (best.second == 0) break;
  }
  return best;
}

}  // namespace

RetentionPlan plan_retention(const History& history, const Retention& retention, const std::set<Uid>& pinned,
                             const std::set<Uid>& doubtful,
                             const std::function<std::uint64_t(const Uid&)>& non_finite) {
  RetentionPlan plan;
  if (retention.keep_last == 0) return plan;
  std::set<Uid> left_behind;
  for (const OpenEntry& open : history.opens()) {
    if (open.left_behind) left_behind.insert(*open.left_behind);
  }
  std::size_t kept = 0;
  std::vector<Uid> reliable_kept, reliable_dropped;  // newest first
  const auto& versions = history.versions();
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    // A version that an earlier session began to drop is not reliable.
    const bool reliable = !doubtful.contains(version->uid) && !history.is_dropped(version->uid);
    const bool drops =
        kept >= retention.keep_last && !pinned.contains(version->uid) && !left_behind.contains(version->uid);
    if (drops) plan.drop.push_back(version->uid);
    if (reliable) (drops ? reliable_dropped : reliable_kept).push_back(version->uid);
    if (reliable && kept < retention.keep_last) ++kept;
  }
  std::reverse(plan.drop.begin(), plan.drop.end());
  plan.reason = "keep the last " + std::to_string(retention.keep_last);
  if (reliable_kept.empty() || reliable_dropped.empty()) return plan;

  const std::uint64_t fewest_kept = fewest(reliable_kept, non_finite).second;
  if (fewest_kept == 0) return plan;
  const auto [uid, count] = fewest(reliable_dropped, non_finite);
  if (count >= fewest_kept) return plan;
  std::erase(plan.drop, uid);
  plan.kept_finite = uid;
  plan.reason += ", and version " + uid.short_text() + ", the newest " +
                 (count == 0 ? std::string("whose tensors are all finite")
                             : "with only " + std::to_string(count) + " numbers that are NaN or infinite") +
                 ": those after it have " + std::to_string(fewest_kept) + " or more that are NaN or infinite";
  return plan;
}

}  // namespace holdfast::storage
