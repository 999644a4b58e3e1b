// Turns the bytes from one rank's pipe into whole lines with the rank's prefix. It knows no descriptors and no clock.
//
// In a line with carriage returns, such as a progress bar's, each part overwrites the one before; what a terminal would
// show counts. Where no terminal shows it, the changing line's current text is written from time to time as a line of
// its own.
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <string_view>

namespace holdfast::tools {

class LinePrefixer {
 public:
  /// A line without an end is held back up to this length, then broken: no byte is lost, and memory stays bounded.
  static constexpr std::size_t kLongestLine = 2u << 20;
  /// The least time between two lines written for a line that rewrites itself.
  static constexpr std::chrono::milliseconds kMoving{500};
  using Clock = std::chrono::steady_clock;

  /// With an empty prefix every byte passes at once and unchanged because no other rank's output must be kept apart.
  /// `overwrites`: a terminal shows the lines, and progress() is drawn there.
  LinePrefixer(std::string prefix, bool overwrites) : prefix_(std::move(prefix)), overwrites_(overwrites) {}

  /// Appends the lines that `bytes` completes to `lines`, each with prefix and newline.
  void take(std::string_view bytes, std::string& lines, Clock::time_point now);
  /// The rank closed its end of the pipe: a last line without a newline gets one.
  void end(std::string& lines);
  /// What a terminal would show of an unfinished line that uses carriage returns to rewrite itself (a progress line),
  /// with prefix; empty for any other line.
  std::string progress() const;
  /// The last lines, oldest first, without prefix; long lines are cut.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  void move(std::string& lines, Clock::time_point now);
  void finish(std::string_view line, std::string& lines);

  const std::string prefix_;
  const bool overwrites_;
  std::string open_;                                  // the line that has no newline yet
  Clock::time_point due_ = Clock::time_point::min();  // when the next line of a line that rewrites itself is due
  std::deque<std::string> last_lines_;
};

}  // namespace holdfast::tools
