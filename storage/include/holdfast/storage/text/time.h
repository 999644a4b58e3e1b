// Points in time as text: RFC 3339 in UTC, to the second.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace holdfast::storage {

/// The current time: "2026-01-31T23:59:59Z".
std::string time_text();
/// Seconds since the Unix epoch; empty for any other text.
std::optional<std::int64_t> parse_time(const std::string& text);

}  // namespace holdfast::storage
