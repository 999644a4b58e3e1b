#include "line_prefixer.h"

#include <utility>

namespace holdfast::tools {
namespace {

constexpr std::size_t kLinesKept = 20;
constexpr std::size_t kKeptOfALine = 4096;

/// What a terminal shows of a line in which every carriage return begins anew: the last part that is not empty.
std::string_view visible(std::string_view line) {
  while (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  const auto last = line.rfind('\r');
  return last == std::string_view::npos ? line : line.substr(last + 1);
}

}  // namespace

void LinePrefixer::take(std::string_view bytes, std::string& lines) {
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
  // A progress bar may rewrite itself for hours before its newline; a terminal forgets what is overwritten, too.
  if (overwrites_ && open_.size() > 4096) {
    const auto seen = visible(open_);
    if (seen.size() < open_.size()) open_ = "\r" + std::string(seen);
  }
  if (open_.size() >= kLongestLine) end(lines);
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
  if (!prefix_.empty()) lines.append(prefix_).append(overwrites_ ? seen : line).push_back('\n');
  last_lines_.emplace_back(seen.substr(0, kKeptOfALine));
  if (last_lines_.size() > kLinesKept) last_lines_.pop_front();
}

}  // namespace holdfast::tools
