#include "ranks/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "holdfast/storage/process.h"
#include "process/host_name.h"
#include "start_thread.h"

namespace holdfast {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTell{1000};
// The store's host stays so long after a failure, so that the others can read the reason.
constexpr milliseconds kLinger{1500};

// After so long a rank stops waiting for the identification of a dead rank and reports only that its connection broke.
constexpr milliseconds kVerdict{4000};

// An exception's message may be long; each heartbeat carries only its beginning.
constexpr std::size_t kLongestReason = 4096;

Heartbeat heartbeat_of_this_process() {
  Heartbeat heartbeat;
  heartbeat.host = host_name();
  heartbeat.pid = ::getpid();
  heartbeat.place = storage::pid_space();
  return heartbeat;
}

}  // namespace

std::string Watchdog::first_heartbeat() { return encode(heartbeat_of_this_process()); }

Watchdog::Watchdog(c10d::Store& store, WatchdogOptions options)
    : options_(std::move(options)), connection_(store, options_.store_port) {
  const auto now = Clock::now();
  seen_.resize(static_cast<std::size_t>(options_.world_size), {{}, now, now});
  wishes_taken_.resize(seen_.size());
  seen_[static_cast<std::size_t>(options_.rank)].heartbeat = heartbeat_of_this_process();
  last_read_ = now;
  try {
    talker_ = start_thread("to exchange heartbeats with the other ranks", [this] { talk(); });
    speaker_ = start_thread("to print what the watchdog finds", [this] { speak(); });
    guard_ = start_thread("to watch the other ranks", [this] { guard(); });
  } catch (...) {
    end_threads();
    throw;
  }
}

void Watchdog::end_threads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (guard_.joinable()) guard_.join();
  connection_.close();
  if (talker_.joinable()) talker_.join();
  if (speaker_.joinable()) speaker_.join();
}

// The process that holds the store must not end before the others have read the reason.
void Watchdog::linger() const {
  const auto until = Clock::now() + kLinger;
  for (std::unique_lock lock(mutex_); fault_ && options_.rank == options_.store_rank;) {
    const auto now = Clock::now();
    const bool waited_for = std::any_of(seen_.begin(), seen_.end(), [&](const Seen& one) {
      return one.heartbeat.state != Heartbeat::State::failed && !one.ended && now - one.beat < options_.silence;
    });
    if (!waited_for || now >= until) return;
    changed_.wait_for(lock, kTick);
  }
}

Watchdog::~Watchdog() {
  linger();
  {
    std::unique_lock lock(mutex_);
    // Otherwise the others would learn of this rank's end before its reason. A store that does not answer is skipped.
    if (fault_ && Clock::now() - last_read_ < kTell) tell_now(lock);
  }
  end_threads();
}

std::uint64_t Watchdog::enter(const std::string& operation, const std::string& site) {
  const std::lock_guard lock(mutex_);
  Seen& own = seen_[static_cast<std::size_t>(options_.rank)];
  own.changed = Clock::now();
  if (own.heartbeat.state != Heartbeat::State::failed) own.heartbeat.state = Heartbeat::State::inside;
  own.heartbeat.enter({operation, site});
  return own.heartbeat.sequence;
}

void Watchdog::leave() {
  const std::lock_guard lock(mutex_);
  Seen& own = seen_[static_cast<std::size_t>(options_.rank)];
  own.changed = Clock::now();
  if (own.heartbeat.state == Heartbeat::State::inside) own.heartbeat.state = Heartbeat::State::running;
}

std::optional<std::string> Watchdog::fault() const {
  const std::lock_guard lock(mutex_);
  return fault_;
}

void Watchdog::fail(const std::string& text, int origin) {
  std::unique_lock lock(mutex_);
  set_fault({origin, text.substr(0, kLongestReason)});
  tell_now(lock);
}

void Watchdog::tell_now(std::unique_lock<std::mutex>& lock) {
  urgent_ = true;
  const std::uint64_t next = begun_ + 1;  // a running talk may carry the former state
  changed_.notify_all();
  changed_.wait_for(lock, kTell, [&] { return told_ >= next || reading_failed_ || stopping_; });
}

std::optional<std::string> Watchdog::verdict() {
  std::unique_lock lock(mutex_);
  connection_broke_ = true;
  changed_.wait_for(lock, kVerdict, [&] { return fault_.has_value(); });
  return fault_;
}

void Watchdog::stop() {
  std::unique_lock lock(mutex_);
  judging_ = false;
  Heartbeat& own = seen_[static_cast<std::size_t>(options_.rank)].heartbeat;
  if (own.state == Heartbeat::State::failed) return;
  own.state = Heartbeat::State::closed;
  tell_now(lock);
}

}  // namespace holdfast
