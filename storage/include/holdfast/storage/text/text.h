// Text from files and users: whether it is UTF-8, and how an error quotes it. Numbers as hexadecimal text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::storage {

/// Whether `text` is well-formed UTF-8, as every JSON string must be.
bool is_utf8(std::string_view text);

/// Whether JSON writes `text` unchanged between quotes: printable ASCII without quotes and backslashes.
bool needs_no_escape(std::string_view text);

/// Whether `text` holds a control character: a line feed, an escape sequence's first byte, ….
bool has_control_characters(std::string_view text);

/// What an error shows of a text: at most 200 bytes, with control characters and bytes that are not UTF-8 escaped,
/// because text from any file may end up on a terminal or in the journal.
std::string excerpt(std::string_view text);
/// Returns excerpt(text) in double quotes.
std::string in_quotes(std::string_view text);

/// Appends the last `digits` hexadecimal digits of a number, lower case, the most significant one first.
void append_hex(std::string& text, std::uint64_t number, std::size_t digits);

}  // namespace holdfast::storage
