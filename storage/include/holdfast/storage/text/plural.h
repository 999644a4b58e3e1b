// Counts of things in messages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::storage {

/// "1 version", "3 versions", "2,000 steps": the count as format_count() writes it, and the noun.
std::string plural(std::uint64_t count, std::string_view noun);

}  // namespace holdfast::storage
