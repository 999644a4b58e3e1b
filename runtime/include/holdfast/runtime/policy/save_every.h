// When to save periodically: the value of --holdfast.every.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast {

/// The intervals of periodic saves; zero is never. If several are set, each counts on its own.
struct SaveEvery {
  std::uint64_t steps = 0;  // at every step number that is a multiple of this
  std::uint64_t epochs = 0;
  std::chrono::nanoseconds time{0};  // since the last save

  friend bool operator==(const SaveEvery&, const SaveEvery&) = default;
};

/// "500", "500steps", "10min", "30s", "1.5h", "1epoch", "500,10min", "never". Throws Error(invalid) with a sentence
/// that quotes the wrong part.
SaveEvery parse_save_every(std::string_view text);
/// "500 steps, 10 min", "never".
std::string to_string(const SaveEvery& every);

}  // namespace holdfast
