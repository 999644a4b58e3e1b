// Quantities in a readable form. Names from files are made printable here because they may contain any bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/text/plural.h"
#include "holdfast/storage/text/time.h"
#include "holdfast/storage/text/units.h"

namespace holdfast::tools {

using storage::format_bytes;
using storage::format_count;
using storage::parse_time;
using storage::plural;
using storage::time_text;

std::string format_age(std::int64_t seconds);  // "3 min"; "just now" below a second and for clocks that disagree
std::string format_number(double value);       // six significant digits
std::string format_shape(const std::vector<std::int64_t>& shape);  // "[32, 1, 3, 3]"

/// Seconds since the Unix epoch.
std::int64_t now();
/// Seconds since a time in RFC 3339, not below 0; empty for any other text.
std::optional<std::int64_t> age_of(const std::string& time);
/// format_age() of it; "?" for any other text.
std::string age_text(const std::string& time);

/// Writes control characters as \xNN, so that a name cannot control the terminal.
std::string printable(std::string_view text);
/// printable(text) in quotes.
std::string in_quotes(std::string_view text);

}  // namespace holdfast::tools
