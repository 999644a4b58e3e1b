#include "holdfast/storage/text/text.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace holdfast::storage {
namespace {

constexpr std::size_t kMostShown = 200;

/// How many bytes the character at the beginning of `text` has; 0 if they are not UTF-8. `text` is not empty.
/// Unicode, table 3-7 "Well-Formed UTF-8 Byte Sequences": which second bytes each leading byte allows.
std::size_t character_bytes(std::string_view text) {
  const auto byte_at = [&](std::size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
  const unsigned lead = byte_at(0);
  std::size_t more = 0;
  unsigned low = 0x80, high = 0xbf;
  if (lead < 0x80) {
    more = 0;
  } else if (lead >= 0xc2 && lead <= 0xdf) {
    more = 1;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    more = 2;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    more = 3;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  for (std::size_t k = 1; k <= more; ++k, low = 0x80, high = 0xbf) {
    if (byte_at(k) < low || byte_at(k) > high) return 0;
  }
  return more + 1;
}

/// U+0000 to U+001F, U+007F, and U+0080 to U+009F, which some terminals also interpret.
bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return first < 0x20 || first == 0x7f;
  return character.size() == 2 && first == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
}

std::string escaped(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_hex(text += "\\x", static_cast<unsigned char>(byte), 2);
  return text;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    std::uint64_t eight;  // skips ASCII quickly, eight bytes at once
    if (text.size() >= sizeof eight) {
      std::memcpy(&eight, text.data(), sizeof eight);
      if ((eight & 0x8080808080808080) == 0) {
        text.remove_prefix(sizeof eight);
        continue;
      }
    }
    const std::size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

bool needs_no_escape(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](const char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}

bool has_control_characters(std::string_view text) {
  while (!text.empty()) {
    const std::string_view character = text.substr(0, std::max<std::size_t>(1, character_bytes(text)));
    if (is_control(character)) return true;
    text.remove_prefix(character.size());
  }
  return false;
}

std::string excerpt(std::string_view text) {
  std::string shown;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t bytes = character_bytes(rest);
    const std::string_view character = rest.substr(0, std::max<std::size_t>(1, bytes));
    const std::string piece = bytes == 0 || is_control(character) ? escaped(character) : std::string(character);
    if (shown.size() + piece.size() > kMostShown) {
      return shown + "… (" + std::to_string(text.size()) + " bytes)";
    }
    shown += piece;
    rest.remove_prefix(character.size());
  }
  return shown;
}

std::string in_quotes(std::string_view text) { return "\"" + excerpt(text) + "\""; }

// By hand because storage does not use fmt: beside LibTorch only LibTorch's copy of it may be used
// (cmake/FindLibTorch.cmake).
void append_hex(std::string& text, std::uint64_t number, std::size_t digits) {
  const std::size_t begin = text.size();
  text.resize(begin + digits);
  for (std::size_t i = text.size(); i-- > begin; number >>= 4) text[i] = "0123456789abcdef"[number & 0xf];
}

}  // namespace holdfast::storage
