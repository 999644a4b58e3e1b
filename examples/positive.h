// For options of which only numbers above 0 make sense. CLI::PositiveNumber says the same with the largest double there
// is.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

inline const CLI::Validator kPositive(
    [](const std::string& text) -> std::string {
      double value = 0;
      return CLI::detail::lexical_cast(text, value) && value > 0 ? "" : "must be above 0, not " + text;
    },
    "POSITIVE");
