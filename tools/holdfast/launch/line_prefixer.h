// Bytes of one rank as they come out of its pipe, to whole lines that say whose they are. Knows no descriptors and no
// clock.
//
// Of a line with carriage returns, such as a progress bar's, what would be seen on a terminal counts: each part
// overwrites the one before. Where no terminal shows it, a line that moves is given as lines of its own, now and then.
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <string_view>

namespace holdfast::tools {

class LinePrefixer {
 public:
  /// A line that a rank never ends is held back up to this, then broken: no byte is lost, and memory stays bounded.
  static constexpr std::size_t kLongestLine = 2u << 20;
  /// So far apart are the lines of one that moves.
  static constexpr std::chrono::milliseconds kMoving{500};
  using Clock = std::chrono::steady_clock;

  /// An empty prefix passes every byte on at once, as it is: there is no other rank to keep apart from.
  /// `overwrites`: a terminal shows the lines, and progress() is drawn there.
  LinePrefixer(std::string prefix, bool overwrites) : prefix_(std::move(prefix)), overwrites_(overwrites) {}

  /// Appends the lines that `bytes` completes to `lines`, each with prefix and newline.
  void take(std::string_view bytes, std::string& lines, Clock::time_point now);
  /// The rank closed its end: a last line without a newline gets one.
  void end(std::string& lines);
  /// What a terminal would show of an unfinished line that uses carriage returns to rewrite itself (a progress line),
  /// with prefix; empty for any other.
  std::string progress() const;
  /// The last lines, oldest first, without prefix; long ones cut.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  void move(std::string& lines, Clock::time_point now);
  void finish(std::string_view line, std::string& lines);

  const std::string prefix_;
  const bool overwrites_;
  std::string open_;                                  // the line that has no newline yet
  Clock::time_point due_ = Clock::time_point::min();  // the next line of one that moves
  std::deque<std::string> last_lines_;
};

}  // namespace holdfast::tools
