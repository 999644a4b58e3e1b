// Checks of a message by its parts: codes, names, numbers, paths, options and call sites. A test that compares these
// and not the sentence need not change when the sentence is improved.
#pragma once

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>

#include "holdfast/runtime/error.h"

/// Whether `text` contains `part`, and not only as a piece of a longer word or number: "1" is not a part of "12".
inline bool has_part(const std::string& text, const std::string& part) {
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    const std::size_t end = at + part.size();
    const bool begins = at == 0 || !in_word(part.front()) || !in_word(text[at - 1]);
    const bool ends = end == text.size() || !in_word(part.back()) || !in_word(text[end]);
    if (begins && ends) return true;
  }
  return false;
}

/// Empty if `text` has every part; otherwise the first that it lacks, and the text.
inline std::string lacking(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (!has_part(text, part)) return "no \"" + part + "\" in: " + text;
  }
  return {};
}

/// Empty if `act` throws a holdfast::Error with this code and a message that has every part; otherwise what it did.
template <class Act>
std::string refusal_lacking(holdfast::storage::StatusCode code, const Act& act,
                            std::initializer_list<std::string> parts) {
  try {
    act();
  } catch (const holdfast::Error& error) {
    if (error.code() != code) return "the code is " + std::string(to_string(error.code())) + ": " + error.what();
    return lacking(error.what(), parts);
  }
  return "nothing was thrown";
}

/// The number of lines of a text in which every line ends with a newline.
inline std::ptrdiff_t lines_of(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }
