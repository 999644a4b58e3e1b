// What the other ranks get, and when, after one has failed: time to end by themselves, SIGTERM, SIGKILL.
#pragma once

#include <chrono>
#include <optional>

namespace holdfast::tools {

class Teardown {
 public:
  using Clock = std::chrono::steady_clock;
  /// Ranks find out by themselves that one is gone, and say what they know of it.
  static constexpr std::chrono::seconds kByThemselves{5};

  explicit Teardown(Clock::duration grace) : grace_(grace) {}

  /// The first failure; later ones change nothing.
  void begin(Clock::time_point now);
  bool begun() const { return next_at_.has_value(); }
  /// The signal that is due, once each; 0 for none.
  int due(Clock::time_point now);
  /// When to ask again.
  std::optional<Clock::time_point> next() const { return over_ ? std::nullopt : next_at_; }
  /// The clock went on while everybody stood still.
  void delay(Clock::duration by);

 private:
  Clock::duration grace_;
  std::optional<Clock::time_point> next_at_;
  bool terminated_ = false;
  bool over_ = false;
};

}  // namespace holdfast::tools
