// Standard output as a terminal or as a pipe: colour and progress appear on a terminal only.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::tools {

enum class Style { plain, bold, dim, good, bad, marked };

/// `text` in colour where standard output is a terminal, NO_COLOR is unset or empty and TERM is not "dumb"
/// (https://no-color.org).
std::string styled(Style style, std::string_view text);

/// Characters on the screen: code points, styling left out.
std::size_t display_width(std::string_view text);

/// Rows under a heading, columns as wide as their widest cell.
class Table {
 public:
  enum class Align { left, right };
  void column(std::string heading, Align align);
  /// As many cells as columns. A row's last cell may be longer than the screen.
  void row(std::vector<std::string> cells);
  /// Leaves out columns whose every cell is empty.
  std::string text(const std::string& indent = "") const;

 private:
  std::vector<std::string> headings_;
  std::vector<Align> aligns_;
  std::vector<std::vector<std::string>> rows_;
};

/// A bar on standard error that appears after a second, where that is a terminal, and is wiped at the end.
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

void print(std::string_view text);
/// One JSON object and a line's end.
void print_json(const nlohmann::ordered_json& value);
/// A number as JSON has it; "Infinity", "-Infinity" and "NaN" as strings, for JSON has no such numbers.
nlohmann::ordered_json json_number(double value);

}  // namespace holdfast::tools
