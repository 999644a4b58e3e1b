#include "terminal/phrases.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <ctime>

namespace holdfast::tools {

// Not format_duration(), whose two units are wider than a column of ages needs.
std::string format_age(std::int64_t seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} d", seconds / 86400);
}

std::string format_number(double value) {
  if (std::isnan(value)) return "NaN";
  return fmt::format("{:.6g}", value);
}

std::string format_shape(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::int64_t now() { return static_cast<std::int64_t>(std::time(nullptr)); }

std::optional<std::int64_t> age_of(const std::string& time) {
  const auto then = parse_time(time);
  return then ? std::optional(std::max<std::int64_t>(0, now() - *then)) : std::nullopt;
}

std::string age_text(const std::string& time) {
  const auto age = age_of(time);
  return age ? format_age(*age) : "?";
}

std::string printable(std::string_view text) {
  std::string safe;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too; in UTF-8 they begin with 0xC2.
    const bool c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (byte < 0x20 || byte == 0x7F || c1) {
      safe += fmt::format("\\x{:02x}", c1 ? static_cast<unsigned char>(text[++i]) : byte);
    } else {
      safe += text[i];
    }
  }
  return safe;
}

std::string in_quotes(std::string_view text) { return "\"" + printable(text) + "\""; }

}  // namespace holdfast::tools
