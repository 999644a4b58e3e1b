// Standard output as a terminal or a pipe: colour and progress appear on a terminal only.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::tools {

enum class Style { plain, bold, dim, good, bad, marked };

/// `text` in colour where standard output is a terminal, NO_COLOR is unset or empty and TERM is not "dumb"
/// (https://no-color.org).
std::string styled(Style style, std::string_view text);

/// Characters on the screen: code points, without styling.
std::size_t display_width(std::string_view text);

/// Rows under a heading; each column is as wide as its widest cell.
class Table {
 public:
  enum class Align { left, right };
  void column(std::string heading, Align align);
  /// REQUIRES: as many cells as columns. A row's last cell may be longer than the screen.
  void row(std::vector<std::string> cells);
  /// Leaves out columns whose every cell is empty.
  std::string text(const std::string& indent = "") const;

 private:
  std::vector<std::string> headings_;
  std::vector<Align> aligns_;
  std::vector<std::vector<std::string>> rows_;
};

/// A progress bar on standard error that appears after a second, if that is a terminal, and is erased at the end.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(std::uint64_t done, std::uint64_t total);

 private:
  const std::string what_;
  const bool on_terminal_;
  const std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point drawn_;
  bool visible_ = false;
};

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

void print(std::string_view text);
/// One JSON object and a newline.
void print_json(const nlohmann::ordered_json& value);
/// A number as JSON; "Infinity", "-Infinity" and "NaN" are strings because JSON has no such numbers.
nlohmann::ordered_json json_number(double value);

}  // namespace holdfast::tools
