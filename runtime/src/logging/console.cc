#include "logging/console.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "holdfast/storage/text/time.h"
#include "holdfast/storage/text/units.h"

namespace holdfast {
namespace {

using std::chrono::seconds;

bool moves_its_cursor(std::FILE* stream) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(stream)) && term && *term && std::string_view(term) != "dumb";
}

// A longer line would wrap, and "\r" would then not return to its beginning.
std::size_t columns(std::FILE* stream) {
  struct winsize size {};
  if (::ioctl(::fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

// The beginning of UTF-8 text that fills so many columns, at one column a character.
std::string_view beginning(std::string_view text, std::size_t columns) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool begins = (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
    if (begins && columns-- == 0) return text.substr(0, at);
  }
  return text;
}

void write(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

}  // namespace

std::string start_line(const StartFacts& facts) {
  auto line = fmt::format(
      "run {} on {}{}{}, seed {}; checkpoints in {}", facts.run, facts.platform.empty() ? "" : facts.platform + ": ",
      facts.ranks > 1 ? fmt::format("{} ranks of ", facts.ranks) : "", facts.device, facts.seed, facts.place);
  line += facts.every == "never" ? ", at the end only" : ", every " + facts.every;
  if (!facts.time.empty()) line += "; " + facts.time;
  line += facts.resumed.empty() ? "; from scratch" : "; resumed " + facts.resumed;
  if (!facts.differences.empty()) {
    line += fmt::format("; {}not bit-exact: {}", facts.sample_exact ? "sample-exact, " : "",
                        fmt::join(facts.differences, ", "));
  }
  if (!facts.note.empty()) line += "; " + facts.note;
  return line;
}

std::string saved_line(const SavedFacts& facts) {
  return fmt::format("saved version {} at step {} ({}): {}, waited {}, {} after {}", facts.version,
                     storage::format_count(facts.step), facts.reason, storage::format_bytes(facts.bytes),
                     storage::format_duration(facts.stall), facts.durability,
                     storage::format_duration(facts.to_durable));
}

std::string end_line(const EndFacts& facts) {
  if (facts.version.empty()) {
    return fmt::format("stopped at step {} ({}) and nothing is saved: running the same command again starts over",
                       storage::format_count(facts.step), facts.reason);
  }
  if (facts.unsaved > 0) {
    return fmt::format(
        "stopped at step {} ({}) and the last {} not saved: running the same command again continues from version {}",
        storage::format_count(facts.step), facts.reason,
        facts.unsaved == 1 ? "step is" : storage::format_count(facts.unsaved) + " steps are", facts.version);
  }
  if (facts.non_finite) {
    return fmt::format(
        "stopped at step {} ({}), saved as version {}: {}", storage::format_count(facts.step), facts.reason,
        facts.version,
        facts.before.empty()
            ? "there is no earlier version: start from scratch with --holdfast.fresh"
            : fmt::format("add --holdfast.from {} to continue from the version before it", facts.before));
  }
  return fmt::format("stopped at step {} ({}), saved as version {}: run the same command again{} to continue",
                     storage::format_count(facts.step), facts.reason, facts.version,
                     facts.fresh ? " without --holdfast.fresh" : "");
}

std::string progress_line(const ProgressFacts& facts, double steps_per_second) {
  std::string line;
  if (facts.epoch) {
    line += fmt::format("epoch {}", facts.epoch);
    if (facts.total_epochs) line += fmt::format("/{}", facts.total_epochs);
    line += "  ";
  }
  line += "step " + storage::format_count(facts.step);
  if (facts.total_steps) {
    line += fmt::format("/{} {:3.0f} %", storage::format_count(facts.total_steps),
                        std::floor(100.0 * static_cast<double>(std::min(facts.step, facts.total_steps)) /
                                   static_cast<double>(facts.total_steps)));
  }
  for (const auto& [name, value] : facts.values) line += fmt::format("  {} {:.4g}", name, value);
  if (steps_per_second > 0) {
    line += fmt::format("  {:.3g} steps/s", steps_per_second);
    if (facts.total_steps > facts.step) {
      // Limited to about 28 years, so that the duration stays in range.
      const double left = std::min(static_cast<double>(facts.total_steps - facts.step) / steps_per_second, 9e8);
      line += "  " + storage::format_duration(seconds(std::llround(left))) + " left";
    }
  }
  return line;
}

Console::Console(std::FILE* stream, Style style)
    : stream_(stream),
      terminal_(style == Style::automatic ? moves_its_cursor(stream) : style == Style::terminal),
      silent_(style == Style::silent) {}

Console::~Console() {
  std::lock_guard lock(mutex_);
  if (moving_line_) write(stream_, "\n");
}

void Console::set_log(Log log) {
  std::lock_guard lock(mutex_);
  log_ = std::move(log);
  if (log_ && !before_log_.empty()) {
    log_(before_log_);
    before_log_.clear();
  }
}

void Console::clear_moving_line() {
  if (moving_line_) write(stream_, "\r\033[K");
  moving_line_ = false;
}

void Console::log_line(std::string_view line) {
  const auto text = fmt::format("{} {}\n", storage::time_text(), line);
  if (log_) {
    log_(text);
  } else {
    before_log_ += text;
  }
}

void Console::say(std::string_view line) {
  if (!silent_) say_of_rank(line);
}

void Console::say_of_rank(std::string_view line) {
  std::lock_guard lock(mutex_);
  clear_moving_line();
  write(stream_, fmt::format("holdfast: {}\n", line));
  if (!silent_) log_line(line);
}

void Console::print(std::string_view text) {
  std::lock_guard lock(mutex_);
  clear_moving_line();
  write(stdout, text);
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  if (!text.empty()) log_line(text);
}

void Console::progress(std::uint64_t step, Clock::time_point now, const std::function<ProgressFacts()>& facts) {
  if (silent_) return;
  std::lock_guard lock(mutex_);
  if (!started_) {
    started_ = true;
    old_mark_ = new_mark_ = {step, now};
    due_ = now + (terminal_ ? Clock::duration(kMoving) : Clock::duration(kPlain));
    log_due_ = now + kPlain;
  }
  if (now < due_) return;
  if (now - new_mark_.second >= seconds(10)) old_mark_ = std::exchange(new_mark_, {step, now});
  const double elapsed = std::chrono::duration<double>(now - old_mark_.second).count();
  const double rate = elapsed > 0 ? static_cast<double>(step - old_mark_.first) / elapsed : 0;
  auto line = progress_line(facts(), rate);
  if (now >= log_due_) {
    log_line(line);
    log_due_ = now + kPlain;
  }
  if (terminal_) {
    write(stream_, fmt::format("\r\033[K{}", beginning(line, columns(stream_) - 1)));
    moving_line_ = true;
    due_ = now + kMoving;
  } else {
    write(stream_, fmt::format("holdfast: {}\n", line));
    due_ = now + kPlain;
  }
}

}  // namespace holdfast
