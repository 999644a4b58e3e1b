#include <fmt/format.h>

#include "ranks/call_site.h"
#include "ranks/watchdog.h"

namespace holdfast {
namespace {

// How often a rank that waits for a grant looks for it.
constexpr std::chrono::milliseconds kHurry{5};

}  // namespace

StopRequest Watchdog::reach(std::uint64_t step, std::uint64_t last, const StopRequest& wish,
                            std::source_location site) {
  std::unique_lock lock(mutex_);
  Heartbeat& own = seen_[static_cast<std::size_t>(options_.rank)].heartbeat;
  own.step = step;
  if (!wish.empty()) {
    own.wish = wish;
    ++own.wishes;
    urgent_ = true;
    changed_.notify_all();
  }
  return options_.rank == 0 ? lead(step, last) : follow(step, site, lock);
}

StopRequest Watchdog::lead(std::uint64_t step, std::uint64_t last) {
  // The wishes without an answer; a wish to stop is the strongest.
  StopRequest wish;
  for (std::size_t rank = 0; rank < seen_.size(); ++rank) {
    const Heartbeat& heartbeat = seen_[rank].heartbeat;
    if (heartbeat.wishes == wishes_taken_[rank]) continue;
    if (wish.save.empty()) wish.save = heartbeat.wish.save;
    if (wish.stop.empty()) wish.stop = heartbeat.wish.stop;
  }
  const auto before = horizon_.grant().until;
  const auto due = horizon_.reach(step, last, Clock::now(), wish);
  if (horizon_.took_wish()) {
    for (std::size_t rank = 0; rank < seen_.size(); ++rank) wishes_taken_[rank] = seen_[rank].heartbeat.wishes;
  }
  seen_[0].heartbeat.grant = horizon_.grant();
  if (horizon_.took_wish() || horizon_.grant().until != before) {
    urgent_ = true;
    changed_.notify_all();
  }
  return due.value_or(StopRequest());
}

StopRequest Watchdog::follow(std::uint64_t step, std::source_location site, std::unique_lock<std::mutex>& lock) {
  const Grant& grant = seen_[0].heartbeat.grant;
  const auto due = [&] { return grant.at == step && done_at_ != step; };
  const auto news = [&] { return fault_.has_value() || due() || grant.until > step; };
  if (!news()) {
    // Recorded as an operation, so that judge() finds a rank 0 that waits for something else.
    Seen& own = seen_[static_cast<std::size_t>(options_.rank)];
    const Heartbeat before = own.heartbeat;
    own.changed = Clock::now();
    own.heartbeat.state = Heartbeat::State::inside;
    own.heartbeat.operation = "the next step";
    own.heartbeat.site = fmt::format("{}, step {}", text_of(site), step + 1);
    ++own.heartbeat.sequence;
    urgent_ = true;  // send it
    do {
      asking_ = true;
      changed_.notify_all();
    } while (!changed_.wait_for(lock, kHurry, news));
    own.changed = Clock::now();
    own.heartbeat.sequence = before.sequence;
    own.heartbeat.operation = before.operation;
    own.heartbeat.site = before.site;
    if (own.heartbeat.state == Heartbeat::State::inside) own.heartbeat.state = before.state;
  }
  if (fault_ || !due()) return {};
  done_at_ = step;
  return grant.request;
}

}  // namespace holdfast
