// What to do if a version has NaN or infinite numbers that the version before did not have.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast {

/// The value of --holdfast.on-nonfinite.
struct OnNonFinite {
  enum class Act { note, stop, rollback };
  Act act = Act::note;
  std::uint64_t steps = 0;  // rollback: at most so many steps may be skipped

  friend bool operator==(const OnNonFinite&, const OnNonFinite&) = default;
};

/// "note", "stop", "rollback:100". Throws Error(invalid) with a sentence that quotes the wrong part.
OnNonFinite parse_on_non_finite(std::string_view text);
std::string to_string(const OnNonFinite& choice);

}  // namespace holdfast
