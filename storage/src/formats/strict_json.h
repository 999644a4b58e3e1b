// JSON as the formats need it: one object, nothing after it, no duplicate keys, bounded depth, no exceptions.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "holdfast/storage/status.h"
#include "holdfast/storage/text/text.h"  // is_utf8

namespace holdfast::storage {

/// How deep the values of an entry may nest; the object itself is depth 1.
inline constexpr int kMaxEntryDepth = 64;

/// Parses `text`, which must be one JSON object from its first byte to its last (white space may follow). `corrupt`
/// with a sentence that begins with `what` ("the manifest") otherwise.
Result<nlohmann::json> parse_strict_json(std::string_view text, int max_depth, std::string_view what);

}  // namespace holdfast::storage
