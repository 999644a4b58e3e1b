#include "ranks/group_control.h"

#include "ranks/group_impl.h"

namespace holdfast::detail {

StopRequest GroupControl::at_step(std::uint64_t step, std::uint64_t last, const StopRequest& wish, Site site) {
  Group::Impl& group = *group_.impl_;
  if (!group.watchdog) return wish;
  group.check();
  StopRequest agreed = group.watchdog->reach(step, last, wish, site);
  group.check();
  return agreed;
}

std::optional<std::string> GroupControl::fault() const { return group_.impl_->fault(); }

void GroupControl::fail(const std::string& why, bool leaves) {
  Group::Impl& group = *group_.impl_;
  if (!group.watchdog || group.closed) return;
  group.watchdog->fail(why, group.ranks.rank);
  if (leaves) group.watchdog->linger();
}

void GroupControl::close(Site site) {
  Group::Impl& group = *group_.impl_;
  if (group.closed) return;
  group.collective("finish", "", "", site);
  group.closed = true;
  if (group.watchdog) group.watchdog->stop();
  if (group.store) leave_store(*group.store, group.ranks, kLeavePatience);
}

}  // namespace holdfast::detail
