// Quantities with their units: formatted for messages and parsed from options.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::storage {

/// "512 B", "1.5 KiB", "18.4 MiB", "1.21 GiB": binary units, at most three significant digits.
std::string format_bytes(std::uint64_t bytes);
/// "0 s", "850 µs", "12.3 ms", "4.56 s", "3 min 07 s", "2 h 05 min", "3 d 04 h", "10 min".
std::string format_duration(std::chrono::nanoseconds duration);
/// "1,234,567".
std::string format_count(std::uint64_t count);

/// "30s", "10min", "1.5h", "2 days": a number and one of ms, s, min, h, d or their words. Empty for anything else, and
/// for negative or too large durations.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text);

}  // namespace holdfast::storage
