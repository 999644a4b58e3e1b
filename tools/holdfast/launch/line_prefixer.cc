#include "launch/line_prefixer.h"

#include <utility>

namespace holdfast::tools {
namespace {

constexpr std::size_t kLinesKept = 20;
constexpr std::size_t kKeptOfALine = 4096;

/// What a terminal shows of a line in which every carriage return starts over: the last part that is not empty.
std::string_view visible(std::string_view line) {
  while (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  const auto last = line.rfind('\r');
  return last == std::string_view::npos ? line : line.substr(last + 1);
}

}  // namespace

void LinePrefixer::take(std::string_view bytes, std::string& lines, Clock::time_point now) {
  if (prefix_.empty()) lines.append(bytes);
  for (auto end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
    if (open_.empty()) {
      finish(bytes.substr(0, end), lines);
    } else {
      open_.append(bytes.substr(0, end));
      finish(std::exchange(open_, {}), lines);
    }
    bytes.remove_prefix(end + 1);
  }
  open_.append(bytes);
  move(lines, now);
  if (open_.size() >= kLongestLine) end(lines);
}

// A progress bar may rewrite itself for hours before its newline. The text before its last carriage return is complete,
// unless that carriage return belongs to the line's end. Text that was overwritten is discarded, as on a terminal.
void LinePrefixer::move(std::string& lines, Clock::time_point now) {
  const auto last = open_.rfind('\r');
  if (last == std::string::npos) return;
  const std::string complete(visible(std::string_view(open_).substr(0, last)));
  const std::string unfinished = open_.substr(last + 1);
  if (overwrites_ || prefix_.empty() || unfinished.empty() || complete.empty() || now < due_) {
    open_ = complete + '\r' + unfinished;
    return;
  }
  lines.append(prefix_).append(complete).push_back('\n');
  due_ = now + kMoving;
  open_ = '\r' + unfinished;
}

void LinePrefixer::end(std::string& lines) {
  if (!open_.empty()) finish(std::exchange(open_, {}), lines);
}

std::string LinePrefixer::progress() const {
  if (open_.find('\r') == std::string::npos) return {};
  return prefix_ + std::string(visible(open_));
}

void LinePrefixer::finish(std::string_view line, std::string& lines) {
  const auto seen = visible(line);
  if (!prefix_.empty()) lines.append(prefix_).append(seen).push_back('\n');
  last_lines_.emplace_back(seen.substr(0, kKeptOfALine));
  if (last_lines_.size() > kLinesKept) last_lines_.pop_front();
}

}  // namespace holdfast::tools
