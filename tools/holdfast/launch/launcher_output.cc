// What launch prints: the ranks' lines, its own sentences, and the report of a failure.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "launch/launcher.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

void Launcher::read_from(Stream& stream, bool at_end) {
  static char buffer[1 << 16];
  const ssize_t got = ::read(stream.pipe, buffer, sizeof buffer);
  if (got < 0 && (errno == EINTR || (errno == EAGAIN && !at_end))) return;
  std::string lines;
  if (got > 0) {
    stream.lines->take({buffer, static_cast<std::size_t>(got)}, lines, Clock::now());
  } else {
    stream.lines->end(lines);
    ::close(stream.pipe);
    stream.pipe = -1;
  }
  // One progress line at the terminal's bottom: that of the first rank of this node.
  const bool first = &stream == &ranks_.front().out || &stream == &ranks_.front().err;
  if (first && stream.to->is_terminal()) {
    std::string progress = stream.lines->progress();
    if (!progress.empty() || progress_owner_ == &stream) {
      progress_owner_ = progress.empty() ? nullptr : &stream;
      stream.to->show_progress(std::move(progress));
    }
  }
  stream.to->add(lines);
}

void Launcher::reader_left(const Output& output) {
  const char* name = &output == &out_ ? "standard output" : "standard error";
  if (output.error() != EPIPE) {
    say(fmt::format("cannot write to {}: {}; what ranks write there is lost", name, std::strerror(output.error())));
    return;
  }
  // Like a rank without launch: losing a terminal or a pipe must not end the training.
  say(fmt::format("the reader of {} is gone; the ranks continue, and what they write there is dropped", name));
}

void Launcher::say(const std::string& sentence) { err_.add_own_line("holdfast launch: " + sentence); }

// The report

std::optional<std::uint64_t> Launcher::saved_step() const {
  std::ifstream file(progress_file_);
  std::uint64_t step = 0;
  return file >> step ? std::optional(step) : std::nullopt;
}

std::vector<std::string> Launcher::last_lines(const Rank& rank) const {
  if (rank.err.lines) return {rank.err.lines->last_lines().begin(), rank.err.lines->last_lines().end()};
  if (rank.log.empty()) return {};
  std::ifstream file(rank.log, std::ios::binary);
  file.seekg(0, std::ios::end);
  const long end = static_cast<long>(file.tellg());
  const long begin = std::max(rank.log_begin, end - (64 << 10));
  std::string bytes(static_cast<std::size_t>(std::max(0L, end - begin)), '\0');
  file.seekg(begin);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  LinePrefixer lines("", false);
  std::string ignored;
  lines.take(bytes, ignored, {});
  lines.end(ignored);
  return {lines.last_lines().begin(), lines.last_lines().end()};
}

void Launcher::show_failure(const StartOutcome& outcome, const Decision& decision) {
  const RankEnd& failure = *outcome.first_failure;
  const Rank& rank =
      *std::find_if(ranks_.begin(), ranks_.end(), [&](const Rank& rank) { return rank.number == failure.rank; });
  const auto lines = last_lines(rank);
  const bool alone = plan_.world.size() == 1;
  // The lines of the only rank are directly above.
  if (!lines.empty() && !(alone && rank.log.empty())) {
    say(fmt::format("the last {} of rank {} {}:", lines.size() == 1 ? "line" : plural(lines.size(), "line"),
                    failure.rank, rank.log.empty() ? "on standard error" : "in " + printable(rank.log)));
    std::string text;
    for (const std::string& line : lines) text += fmt::format("[{}] {}\n", failure.rank, line);
    err_.add(text);
  }
  std::string sentence = alone ? "the program failed: " : fmt::format("rank {} failed first: ", failure.rank);
  sentence += failure.text();
  if (failure.signal == SIGKILL && !outcome.told_to_stop)
    sentence += " (from outside; the kernel does so when memory runs out)";
  if (!decision.reason.empty()) sentence += "; " + decision.reason;
  say(sentence);
}

}  // namespace holdfast::tools
