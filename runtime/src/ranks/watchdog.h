// The watchdog over all ranks: every quarter of a second it writes this rank's heartbeat to the store and reads the
// others'. On a permanent fault it ends this rank's wait, so that every rank stops with the same error.
//
// Three threads: one talks to the store and may be blocked by it (its host can hang), one prints and may be blocked by
// the terminal or the run's folder, one judges and never blocks.
// Threads: enter and leave from the rank's own thread; fail and fault from any.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <thread>
#include <vector>

#include "ranks/fault_judgement.h"
#include "ranks/heartbeat.h"
#include "ranks/step_horizon.h"
#include "ranks/transport.h"

namespace holdfast {

struct WatchdogOptions {
  int rank = 0;
  int world_size = 1;
  std::uint16_t store_port = 0;
  int store_rank = 0;  // the rank whose process holds the store; -1: the launcher does
  /// After so long, waiting for a slow rank is reported once.
  std::chrono::milliseconds say_waiting_after{30000};
  /// A rank without a heartbeat for so long is gone or hangs.
  std::chrono::milliseconds silence{15000};
  std::function<void()> interrupt = {};  // ends this rank's wait
  /// Whether another rank closed a connection to this one. Called at each tick; must not block.
  std::function<bool()> has_lost_connection = {};
  std::function<void(const std::string&)> say = {};
};

class Watchdog {
 public:
  /// The heartbeats' key in the store, completed by the rank, and this rank's first heartbeat, which must be there
  /// before any watchdog begins.
  static constexpr const char* kKey = "heartbeat";
  static std::string first_heartbeat();

  Watchdog(c10d::Store& store, WatchdogOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// The number of the operation that this rank enters.
  std::uint64_t enter(const std::string& operation, const std::string& site);
  void leave();
  /// Why all ranks stop; nothing without a fault.
  std::optional<std::string> fault() const;
  /// This rank stops for a reason of its own, or because of a fault that it found. The others are informed before this
  /// returns, if that takes at most a second. The first reason stays.
  void fail(const std::string& text, int origin);
  /// Call it before this process ends because of a fault: if it holds the store, it waits a moment until the others
  /// have read the reason.
  void linger() const;
  /// A connection of this rank broke, so another rank is dead: waits until the dead rank is identified. Empty if that
  /// takes too long.
  std::optional<std::string> verdict();
  /// This rank has done `step`: returns what all ranks do here (step_horizon.h). If rank 0 has granted no further step,
  /// waits until it does or a fault is found. `last`: see StepHorizon::reach.
  StopRequest reach(std::uint64_t step, std::uint64_t last, const StopRequest& wish, std::source_location site);
  /// All ranks agreed to end, so silence is a fault no longer. The others are informed before this returns, if that
  /// takes at most a second.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kTick{50};
  struct Seen {
    Heartbeat heartbeat;
    Clock::time_point beat;                       // when this rank last read a new beat
    Clock::time_point changed;                    // when state or operation changed
    std::optional<Clock::time_point> ended = {};  // when its process was seen to have ended
  };
  // watchdog_threads.cc
  void talk();
  void listen_to(int rank, const std::string& text, Clock::time_point now);
  void guard();
  void speak();
  std::vector<Peer> peers(Clock::time_point now) const;
  void set_fault(const Fault& fault);
  void look_for_ended_processes(Clock::time_point now);
  // watchdog_steps.cc
  StopRequest lead(std::uint64_t step, std::uint64_t last);
  StopRequest follow(std::uint64_t step, std::source_location site, std::unique_lock<std::mutex>& lock);
  // watchdog.cc
  void tell_now(std::unique_lock<std::mutex>& lock);
  void end_threads();

  WatchdogOptions options_;
  StoreConnection connection_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<Seen> seen_;  // by rank, this one included
  Clock::time_point last_read_;
  bool reading_failed_ = false;
  bool urgent_ = false;  // talk now
  bool asking_ = false;  // read rank 0's heartbeat now
  bool connection_broke_ = false;
  std::string to_say_;                       // the speaker's next line
  StepHorizon horizon_;                      // rank 0's
  std::vector<std::uint64_t> wishes_taken_;  // by rank
  std::uint64_t done_at_ = 0;                // the step of the last request that this rank followed
  std::uint64_t begun_ = 0, told_ = 0;       // talks
  bool stopping_ = false;
  bool judging_ = true;
  std::optional<std::string> fault_;
  std::thread talker_;
  std::thread speaker_;
  std::thread guard_;
};

}  // namespace holdfast
