// What to do where a version has NaN or infinite numbers that the one before it had not.
#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast {

/// What --holdfast.on-nonfinite says.
struct OnNonFinite {
  enum class Act { note, stop, rollback };
  Act act = Act::note;
  std::uint64_t steps = 0;  // rollback: as many steps may be skipped at most

  friend bool operator==(const OnNonFinite&, const OnNonFinite&) = default;
};

/// "note", "stop", "rollback:100". Throws Error(invalid) with a sentence that quotes what is wrong.
OnNonFinite parse_on_non_finite(std::string_view text);

}  // namespace holdfast
