// Quantities in a readable form. Names from files are made printable here because they may contain any bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::tools {

std::string format_bytes(std::uint64_t bytes);  // "1.21 MiB"
std::string format_count(std::uint64_t count);  // "12,800"
std::string format_age(std::int64_t seconds);   // "3 min"; "just now" below a second and for clocks that disagree
std::string format_number(double value);        // six significant digits
std::string format_shape(const std::vector<std::int64_t>& shape);  // "[32, 1, 3, 3]"
/// "1 version", "3 versions".
std::string plural(std::uint64_t count, std::string_view noun);

/// Seconds since the Unix epoch of an RFC 3339 time in UTC; empty for anything else.
std::optional<std::int64_t> parse_time(const std::string& text);
std::int64_t now();
/// The current time as RFC 3339 in UTC.
std::string time_text();

/// Writes control characters as \xNN, so that a name cannot control the terminal.
std::string printable(std::string_view text);
/// printable(text) in quotes.
std::string in_quotes(std::string_view text);

}  // namespace holdfast::tools
