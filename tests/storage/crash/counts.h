// Counts that a test prints, and the seed that chooses its slice.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

namespace holdfast::storage::crash {

/// HOLDFAST_SEED, else 1.
inline std::uint64_t seed() {
  const char* text = std::getenv("HOLDFAST_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

/// Prints one line to standard output directly, so that a log shows it whatever the test framework prints.
inline void print_counts(const std::string& line) { std::cout << line << " seed=" << seed() << std::endl; }

}  // namespace holdfast::storage::crash
