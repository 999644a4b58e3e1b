#include "holdfast/runtime/ranks/group.h"

#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <future>
#include <utility>

#include "process/detached_task.h"
#include "process/host_name.h"
#include "ranks/group_control.h"
#include "ranks/group_impl.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// How often a connecting rank checks whether all must stop.
constexpr std::chrono::milliseconds kLookWhileConnecting{20};

void say_to_stderr(const std::string& line) { std::fprintf(stderr, "holdfast: %s\n", line.c_str()); }

}  // namespace

Group::Group(const RankEnvironment& ranks, c10::Device device) : Group(ranks, device, detail::GroupOptions()) {}

Group::Group(const RankEnvironment& ranks, c10::Device device, const detail::GroupOptions& options)
    : impl_(std::make_unique<Impl>()) {
  impl_->ranks = ranks;
  impl_->device = device;
  if (ranks.world_size == 1) return;
  Transport::prepare(device);
  const JoinOptions join{options.join_within, options.say_waiting_after, options.say ? options.say : say_to_stderr};
  if (!ranks.local_known) find_place_on_host(impl_->ranks, join);
  impl_->store = join_store(ranks, Watchdog::kKey, Watchdog::first_heartbeat(),
                            fmt::format("pid {} on {}", ::getpid(), host_name()), join);
  WatchdogOptions watchdog;
  watchdog.rank = ranks.rank;
  watchdog.world_size = ranks.world_size;
  watchdog.store_port = ranks.port;
  watchdog.store_rank = ranks.launcher_has_store ? -1 : 0;
  watchdog.say_waiting_after = options.say_waiting_after;
  watchdog.silence = options.silence;
  watchdog.say = join.say;
  watchdog.interrupt = [impl = impl_.get()] { impl->interrupt(); };
  watchdog.has_lost_connection = [impl = impl_.get()] { return impl->has_lost_connection(); };
  try {
    if (options.watchdog) impl_->watchdog = std::make_unique<Watchdog>(*impl_->store, std::move(watchdog));
    impl_->connect();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    impl_->heed_verdict();
    throw Error(StatusCode::unreadable,
                fmt::format("rank {} cannot connect to the other ranks: {}", ranks.rank, first_line(error.what())));
  }
}

Group::~Group() {
  if (impl_->watchdog && !impl_->closed && !impl_->watchdog->fault()) {
    impl_->watchdog->fail(
        std::uncaught_exceptions() > 0
            ? fmt::format("rank {} exited with an exception before session.finish(); see that rank's output", rank())
            : fmt::format("rank {} ended without calling session.finish()", rank()),
        rank());
  }
  impl_->watchdog.reset();
}

// Gloo waits forever for a rank that died while all connect. So another thread connects, and this one listens to the
// watchdog.
void Group::Impl::connect() {
  auto opened = run_detached("to connect to the other ranks", [ranks = ranks, store = store, device = device] {
    const c10::DeviceGuard on_device(device);
    return std::make_unique<Transport>(ranks, store, device);
  });
  while (opened.wait_for(kLookWhileConnecting) != std::future_status::ready) check();
  {
    auto made = opened.get();
    const std::lock_guard lock(connecting);
    transport = std::move(made);
  }
  check();
}

void Group::Impl::interrupt() {
  const std::lock_guard lock(connecting);
  if (transport) transport->interrupt();
}

bool Group::Impl::has_lost_connection() {
  const std::lock_guard lock(connecting);
  return transport && transport->has_lost_connection();
}

int Group::rank() const { return impl_->ranks.rank; }
int Group::world_size() const { return impl_->ranks.world_size; }
int Group::local_rank() const { return impl_->ranks.local_rank; }
c10::Device Group::device() const { return impl_->device; }

std::pair<std::size_t, std::size_t> Group::part(std::size_t size) const {
  const auto ranks = static_cast<std::size_t>(world_size()), mine = static_cast<std::size_t>(rank());
  const std::size_t each = size / ranks, longer = size % ranks;
  const std::size_t begin = mine * each + std::min(mine, longer);
  return {begin, begin + each + (mine < longer ? 1 : 0)};
}

}  // namespace holdfast
