// Checks of a message by its parts: names, numbers, options, paths and call sites. A test that compares these and not
// the sentence need not change when the sentence is improved.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "holdfast/runtime/error.h"

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Where `part` begins in `text`, from `from` on. A number is not found within a longer one: 1 is not in 12.
inline std::size_t find_part(const std::string& text, const std::string& part, std::size_t from = 0) {
  const auto is_digit = [&](std::size_t at) {
    return at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0;
  };
  for (auto at = text.find(part, from); at != std::string::npos; at = text.find(part, at + 1)) {
    const std::size_t end = at + part.size();
    const bool cuts_a_number =
        (at > 0 && is_digit(at - 1) && is_digit(at)) || (end > 0 && is_digit(end - 1) && is_digit(end));
    if (!cuts_a_number) return at;
  }
  return std::string::npos;
}

/// How many lines of `text` have all of `parts`.
inline std::size_t count_lines(const std::string& text, const std::vector<std::string>& parts) {
  std::size_t count = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto has = [&](const std::string& part) { return find_part(line, part) != std::string::npos; };
    count += std::all_of(parts.begin(), parts.end(), has) ? 1 : 0;
  }
  return count;
}

/// Whether a line of `text` has all of `parts`.
inline bool has_line(const std::string& text, const std::vector<std::string>& parts) {
  return count_lines(text, parts) > 0;
}

/// Whether a line of `text` has all of `parts` in this order, for messages that name several ranks.
inline bool has_line_in_order(const std::string& text, const std::vector<std::string>& parts) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::size_t at = 0;
    const auto follows = [&](const std::string& part) {
      at = find_part(line, part, at);
      if (at == std::string::npos) return false;
      at += part.size();
      return true;
    };
    if (std::all_of(parts.begin(), parts.end(), follows)) return true;
  }
  return false;
}

/// The message of the holdfast::Error that `act` throws; empty if it throws none.
template <class Act>
std::string error_of(const Act& act) {
  try {
    act();
  } catch (const holdfast::Error& error) {
    return error.what();
  }
  return {};
}

/// The holdfast::Error that `act` throws.
template <class Act>
holdfast::Error refusal_of(const Act& act) {
  try {
    act();
  } catch (const holdfast::Error& error) {
    return error;
  }
  throw std::logic_error("no holdfast::Error was thrown");
}

/// Empty if `text` has every part; otherwise the first that it lacks, and the text.
inline std::string lacking(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (find_part(text, part) == std::string::npos) return "no \"" + part + "\" in: " + text;
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
