// Bytes of one rank as they come out of its pipe, to whole lines that say whose they are. Knows no descriptors.
#pragma once

#include <deque>
#include <string>
#include <string_view>

namespace holdfast::tools {

class LinePrefixer {
 public:
  /// A line that a rank never ends is held back up to this, then broken: no byte is lost, and memory stays bounded.
  static constexpr std::size_t kLongestLine = 64u << 20;

  /// An empty prefix passes every byte on at once, as it is: there is no other rank to keep apart from.
  /// `overwrites`: a terminal shows the lines, so of a line with carriage returns only what would be seen is given.
  LinePrefixer(std::string prefix, bool overwrites) : prefix_(std::move(prefix)), overwrites_(overwrites) {}

  /// Appends the lines that `bytes` completes to `lines`, each with prefix and newline.
  void take(std::string_view bytes, std::string& lines);
  /// The rank closed its end: a last line without a newline gets one.
  void end(std::string& lines);
  /// What a terminal would show of an unfinished line that uses carriage returns to rewrite itself (a progress line),
  /// with prefix; empty for any other.
  std::string progress() const;
  /// The last lines, oldest first, without prefix; long ones cut.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  void finish(std::string_view line, std::string& lines);

  const std::string prefix_;
  const bool overwrites_;
  std::string open_;  // the line that has no newline yet
  std::deque<std::string> last_lines_;
};

}  // namespace holdfast::tools
