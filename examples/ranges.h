// For options that count or measure: refuses, with a plain message, values that CLI11 by itself reads as another number
// (-1 as one of twenty digits, one of twenty digits as the largest there is) or reports with the largest double.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

inline CLI::Validator at_most_a_billion(const char* name, const char* words, bool zero) {
  return CLI::Validator(
      [words, zero](const std::string& text) -> std::string {
        double value = 0;
        const bool fits = CLI::detail::lexical_cast(text, value) && (value > 0 || (zero && value == 0)) && value <= 1e9;
        return fits ? "" : "must be " + std::string(words) + ", not " + text;
      },
      name);
}

inline const CLI::Validator kPositive = at_most_a_billion("POSITIVE", "above 0 and at most a billion", false);
inline const CLI::Validator kNotNegative = at_most_a_billion("NONNEGATIVE", "from 0 to a billion", true);
