// Text that files and users give: whether it is UTF-8, and how an error quotes it.
#pragma once

#include <string>
#include <string_view>

namespace holdfast::storage {

/// Whether `text` is well-formed UTF-8, as every JSON string must be.
bool is_utf8(std::string_view text);

/// Whether JSON writes `text` as it stands, between quotes: printable ASCII without quotes and backslashes.
bool needs_no_escape(std::string_view text);

/// Whether `text` holds a control character: a line feed, an escape sequence's first byte, ….
bool has_control_characters(std::string_view text);

/// What an error shows of a text: at most 200 bytes, with control characters and bytes that are not UTF-8 escaped. A
/// file may say anything, and what it says ends on terminals and in the journal.
std::string excerpt(std::string_view text);
/// excerpt() in double quotes.
std::string in_quotes(std::string_view text);

}  // namespace holdfast::storage
