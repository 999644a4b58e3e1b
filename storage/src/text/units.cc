#include "holdfast/storage/text/units.h"

#include <cmath>
#include <cstdio>
#include <locale>
#include <sstream>
#include <utility>

namespace holdfast::storage {
namespace {

// By hand, because the C++ library and fmt know no units. Three significant digits at most: 1.21, 18.4, 512, 1.5, 30.
std::string three_digits(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.*f", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value);
  std::string text = digits;
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

// "3 min 07 s", "10 min".
std::string two_units(std::int64_t amount, std::int64_t per, const char* large, const char* small) {
  const std::string whole = std::to_string(amount / per) + " " + large;
  const std::int64_t rest = amount % per;
  return rest == 0 ? whole : whole + (rest < 10 ? " 0" : " ") + std::to_string(rest) + " " + small;
}

}  // namespace

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    value /= 1024;
    unit = next;
    if (value < 1023.5) break;
  }
  return three_digits(value) + " " + unit;
}

std::string format_duration(std::chrono::nanoseconds duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  if (duration <= std::chrono::nanoseconds::zero()) return "0 s";
  if (seconds < 0.9995e-3) return three_digits(seconds * 1e6) + " µs";
  if (seconds < 0.9995) return three_digits(seconds * 1e3) + " ms";
  if (seconds < 59.95) return three_digits(seconds) + " s";
  const auto whole = std::llround(seconds), minutes = std::llround(seconds / 60), hours = std::llround(seconds / 3600);
  if (whole < 3600) return two_units(whole, 60, "min", "s");
  if (minutes < 24 * 60) return two_units(minutes, 60, "h", "min");
  return two_units(hours, 24, "d", "h");
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

}  // namespace holdfast::storage
