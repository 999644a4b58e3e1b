// What the other ranks get after one has failed, and when: time to end by themselves, SIGTERM, SIGKILL.
#pragma once

#include <chrono>
#include <optional>

namespace holdfast::tools {

class Teardown {
 public:
  using Clock = std::chrono::steady_clock;
  /// Ranks notice by themselves that one is gone, and report what they know.
  static constexpr std::chrono::seconds kByThemselves{5};

  explicit Teardown(Clock::duration grace) : grace_(grace) {}

  /// Starts at the first failure; later calls change nothing.
  void begin(Clock::time_point now);
  bool begun() const { return next_at_.has_value(); }
  /// The signal that is due, each one once; 0 for none.
  int due(Clock::time_point now);
  /// When to call due() again.
  std::optional<Clock::time_point> next() const { return over_ ? std::nullopt : next_at_; }
  /// Shifts the deadlines by a time in which all processes were suspended.
  void delay(Clock::duration by);

 private:
  Clock::duration grace_;
  std::optional<Clock::time_point> next_at_;
  bool terminated_ = false;
  bool over_ = false;
};

}  // namespace holdfast::tools
