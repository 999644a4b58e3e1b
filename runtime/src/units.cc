#include "holdfast/runtime/units.h"

#include <fmt/format.h>

#include <cmath>
#include <locale>
#include <sstream>
#include <utility>

namespace holdfast {
namespace {

// Three significant digits: 1.21, 18.4, 512.
std::string three_digits(double value) {
  return fmt::format("{:.{}f}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

}  // namespace

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    value /= 1024;
    unit = next;
    if (value < 1023.5) break;
  }
  return fmt::format("{} {}", three_digits(value), unit);
}

std::string format_duration(std::chrono::nanoseconds duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  if (duration <= std::chrono::nanoseconds::zero()) return "0 s";
  if (seconds < 0.9995e-3) return fmt::format("{} µs", three_digits(seconds * 1e6));
  if (seconds < 0.9995) return fmt::format("{} ms", three_digits(seconds * 1e3));
  if (seconds < 59.95) return fmt::format("{} s", three_digits(seconds));
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  const auto minutes = std::llround(seconds / 60);
  if (minutes < 24 * 60) return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
  const auto hours = std::llround(seconds / 3600);
  return fmt::format("{} d {:02} h", hours / 24, hours % 24);
}

std::string format_count(std::uint64_t count) {
  auto digits = std::to_string(count);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, ",");
  return digits;
}

std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ms", 1e6},      {"s", 1e9},        {"sec", 1e9},     {"second", 1e9},   {"seconds", 1e9},
      {"min", 60e9},    {"mins", 60e9},    {"minute", 60e9}, {"minutes", 60e9}, {"h", 3600e9},
      {"hour", 3600e9}, {"hours", 3600e9}, {"d", 86400e9},   {"day", 86400e9},  {"days", 86400e9}};
  const auto digits = text.find_first_not_of("0123456789.");
  if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
  // std::from_chars for double is missing in older libraries; a stream in the classic locale reads the same grammar.
  std::istringstream stream{std::string(text.substr(0, digits))};
  stream.imbue(std::locale::classic());
  double number = 0;
  if (!(stream >> number) || stream.peek() != std::istringstream::traits_type::eof()) return std::nullopt;
  auto unit = text.substr(digits);
  if (unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, nanoseconds] : kUnits) {
    if (unit != name) continue;
    const double total = number * nanoseconds;
    if (!(total < 9e18)) return std::nullopt;
    return std::chrono::nanoseconds(std::llround(total));
  }
  return std::nullopt;
}

}  // namespace holdfast
