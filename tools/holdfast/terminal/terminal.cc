#include "terminal/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "terminal/phrases.h"

namespace holdfast::tools {
namespace {

bool with_colour() {
  static const bool answer = [] {
    const char* no_color = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return ::isatty(STDOUT_FILENO) == 1 && !(no_color && *no_color) && !(term && std::string_view(term) == "dumb");
  }();
  return answer;
}

const char* escape_of(Style style) {
  switch (style) {
    case Style::plain:
      return "";
    case Style::bold:
      return "\x1b[1m";
    case Style::dim:
      return "\x1b[2m";
    case Style::good:
      return "\x1b[32m";
    case Style::bad:
      return "\x1b[31m";
    case Style::marked:
      return "\x1b[36m";
  }
  return "";
}

}  // namespace

std::string styled(Style style, std::string_view text) {
  if (!with_colour() || style == Style::plain || text.empty()) return std::string(text);
  return std::string(escape_of(style)).append(text).append("\x1b[0m");
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++width;
    }
  }
  return width;
}

void Table::column(std::string heading, Align align) {
  headings_.push_back(std::move(heading));
  aligns_.push_back(align);
}

void Table::row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

std::string Table::text(const std::string& indent) const {
  std::vector<std::size_t> widths(headings_.size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string text;
  const auto add = [&](const std::vector<std::string>& cells, Style style) {
    std::string line = indent;
    std::size_t pending = 0;  // blanks before the next cell, kept back so that no line ends in blanks
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (widths[i] == 0) continue;
      const std::size_t width = std::max(widths[i], display_width(headings_[i]));
      const std::size_t blanks = width - display_width(cells[i]);
      if (aligns_[i] == Align::right) pending += blanks;
      if (!cells[i].empty()) {
        line.append(pending, ' ').append(styled(style, cells[i]));
        pending = 0;
      }
      pending += (aligns_[i] == Align::left ? blanks : 0) + 2;
    }
    text += line + "\n";
  };
  add(headings_, Style::dim);
  for (const auto& row : rows_) add(row, Style::plain);
  return text;
}

Progress::Progress(std::string what)
    : what_(std::move(what)),
      on_terminal_(::isatty(STDERR_FILENO) == 1),
      begin_(std::chrono::steady_clock::now()),
      drawn_(begin_) {}

Progress::~Progress() {
  if (visible_) std::fputs("\r\x1b[K", stderr);
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  using namespace std::chrono_literals;
  if (!on_terminal_) return;
  const auto time = std::chrono::steady_clock::now();
  if (time - begin_ < 1s || time - drawn_ < 100ms) return;
  drawn_ = time;
  visible_ = true;
  const double seconds = std::chrono::duration<double>(time - begin_).count();
  const double share = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  constexpr int kCells = 24;
  const int filled = static_cast<int>(share * kCells);
  fmt::print(stderr, "\r\x1b[K{} [{}{}] {:3.0f} %  {} of {}  {}/s", what_, std::string(filled, '='),
             std::string(kCells - filled, ' '), share * 100, format_bytes(done), format_bytes(total),
             format_bytes(static_cast<std::uint64_t>(static_cast<double>(done) / seconds)));
  std::fflush(stderr);
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_json(const nlohmann::ordered_json& value) {
  print(value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

nlohmann::ordered_json json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

}  // namespace holdfast::tools
