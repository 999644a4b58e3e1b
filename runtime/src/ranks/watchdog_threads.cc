#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "holdfast/storage/process.h"
#include "ranks/watchdog.h"

namespace holdfast {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBeat{250};
// A tick that comes so late means that this process, or the whole machine, was suspended: the heartbeats it read are
// old.
constexpr milliseconds kJump{1000};

// A closed connection means that a rank has ended. So long a silence then identifies that rank.
constexpr milliseconds kSilenceOfTheDead{3000};

std::string key_of(int rank) { return std::string(Watchdog::kKey) + "/" + std::to_string(rank); }

// Ended, or a zombie.
bool is_over(std::int64_t pid) {
  if (::kill(static_cast<pid_t>(pid), 0) != 0) return errno == ESRCH;
  const auto stat = storage::read_process_stat(static_cast<pid_t>(pid));
  return stat && stat->has_ended;
}

}  // namespace

// On this host an ended process is found at once, before its heartbeats are missed.
void Watchdog::look_for_ended_processes(Clock::time_point now) {
  const std::string here = seen_[static_cast<std::size_t>(options_.rank)].heartbeat.place;
  for (Seen& one : seen_) {
    if (one.ended || here.empty() || one.heartbeat.place != here || one.heartbeat.pid <= 0) continue;
    if (is_over(one.heartbeat.pid)) one.ended = now;
  }
}

// Talks to the store: writes this rank's heartbeat and reads all. In between, a rank that waits for rank 0's grant
// reads rank 0's heartbeat alone.
void Watchdog::talk() {
  std::vector<std::string> keys;
  for (int rank = 0; rank < options_.world_size; ++rank) keys.push_back(key_of(rank));
  const std::vector<std::string> first_key(keys.begin(), keys.begin() + 1);
  auto due = Clock::now();
  std::unique_lock lock(mutex_);
  const auto failed_with = [&] {
    reading_failed_ = true;
    changed_.notify_all();
  };
  while (!stopping_) {
    if (!urgent_ && Clock::now() < due) {
      if (asking_) {
        asking_ = false;
        lock.unlock();
        std::vector<std::string> texts;
        try {
          texts = connection_.get(first_key);
        } catch (const std::exception&) {
        }
        lock.lock();
        if (texts.empty()) return failed_with();
        listen_to(0, texts[0], Clock::now());
        changed_.notify_all();
      }
      changed_.wait_until(lock, due, [&] { return stopping_ || urgent_ || asking_; });
      continue;
    }
    due = Clock::now() + kBeat;
    Heartbeat own = seen_[static_cast<std::size_t>(options_.rank)].heartbeat;
    own.beat = ++seen_[static_cast<std::size_t>(options_.rank)].heartbeat.beat;
    urgent_ = false;
    ++begun_;
    lock.unlock();
    std::vector<std::string> texts;
    try {
      connection_.set(key_of(options_.rank), encode(own));
      texts = connection_.get(keys);
    } catch (const std::exception&) {
    }
    lock.lock();
    ++told_;
    if (texts.empty()) return failed_with();  // a connection that broke stays broken
    const auto now = Clock::now();
    last_read_ = now;
    for (int rank = 0; rank < options_.world_size; ++rank) listen_to(rank, texts[static_cast<std::size_t>(rank)], now);
    changed_.notify_all();
  }
}

void Watchdog::listen_to(int rank, const std::string& text, Clock::time_point now) {
  Seen& seen = seen_[static_cast<std::size_t>(rank)];
  if (rank == options_.rank) {
    seen.beat = now;
    return;
  }
  auto heartbeat = decode_heartbeat(text);
  if (!heartbeat) {
    set_fault({rank, fmt::format("rank {} sends heartbeats that rank {} cannot read; start the same build of the "
                                 "program on all hosts",
                                 rank, options_.rank)});
    return;
  }
  if (heartbeat->beat != seen.heartbeat.beat) seen.beat = now;
  if (heartbeat->state != seen.heartbeat.state || heartbeat->sequence != seen.heartbeat.sequence) seen.changed = now;
  seen.heartbeat = std::move(*heartbeat);
}

// The input of judge(). While the store does not answer, only its holder's silence grows; the others' is unknown.
std::vector<Peer> Watchdog::peers(Clock::time_point now) const {
  const auto since = [](Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration_cast<milliseconds>(std::max(to - from, Clock::duration::zero()));
  };
  std::vector<Peer> all;
  for (std::size_t rank = 0; rank < seen_.size(); ++rank) {
    const bool holds_store = static_cast<int>(rank) == options_.store_rank;
    all.push_back({seen_[rank].heartbeat, since(seen_[rank].beat, holds_store ? now : last_read_),
                   since(seen_[rank].changed, seen_[rank].beat), reading_failed_ && holds_store,
                   // Its last heartbeat was read after its end.
                   seen_[rank].ended && last_read_ > *seen_[rank].ended});
  }
  return all;
}

// The first fault stays.
void Watchdog::set_fault(const Fault& fault) {
  if (fault_) return;
  Heartbeat& own = seen_[static_cast<std::size_t>(options_.rank)].heartbeat;
  own.state = Heartbeat::State::failed;
  own.text = fault.text;
  own.origin = fault.rank;
  fault_ = fault.text;
  urgent_ = true;
  changed_.notify_all();
}

// Prints what the guard finds: a stopped terminal, or a folder on a mount that hangs, may block this thread forever.
void Watchdog::speak() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait(lock, [&] { return stopping_ || !to_say_.empty(); });
    if (to_say_.empty()) continue;
    const std::string line = std::exchange(to_say_, {});
    lock.unlock();
    options_.say(line);
    lock.lock();
  }
}

void Watchdog::guard() {
  bool said = false;
  std::uint64_t said_at = 0;
  bool interrupted = false;
  auto last_tick = Clock::now();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait_for(lock, kTick, [&] { return stopping_; });
    const auto now = Clock::now();
    if (now - last_tick > kJump) {
      for (Seen& one : seen_) one.beat = one.changed = now;
      last_read_ = now;
    }
    last_tick = now;
    if (stopping_ || !judging_) continue;
    look_for_ended_processes(now);
    if (!connection_broke_ && options_.has_lost_connection) {
      lock.unlock();
      const bool lost = options_.has_lost_connection();
      lock.lock();
      connection_broke_ = connection_broke_ || lost;
      if (stopping_ || !judging_) continue;
    }
    const auto all = peers(now);
    if (!fault_) {
      const auto silence = connection_broke_ ? std::min(options_.silence, kSilenceOfTheDead) : options_.silence;
      if (auto fault = judge(options_.rank, all, silence)) {
        set_fault(*fault);
      } else if (reading_failed_ && options_.store_rank < 0) {
        set_fault({-1, "the launcher's store is gone, so the ranks can no longer exchange heartbeats"});
      }
    }
    const Seen& own = seen_[static_cast<std::size_t>(options_.rank)];
    if (fault_ && !interrupted) {
      interrupted = true;
      lock.unlock();
      options_.interrupt();
      lock.lock();
    } else if (!fault_ && own.heartbeat.state == Heartbeat::State::inside &&
               now - own.changed > options_.say_waiting_after && (!said || said_at != own.heartbeat.sequence)) {
      const std::string whom = waiting_for(options_.rank, all);
      said = !whom.empty();
      said_at = own.heartbeat.sequence;
      if (!said) continue;
      to_say_ = fmt::format("rank {} waits in {} at {} for {}", options_.rank, own.heartbeat.operation,
                            own.heartbeat.site, whom);
      changed_.notify_all();
    }
  }
}

}  // namespace holdfast
