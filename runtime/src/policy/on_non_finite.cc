#include "holdfast/runtime/policy/on_non_finite.h"

#include <fmt/format.h>

#include <charconv>

#include "holdfast/runtime/error.h"

namespace holdfast {

OnNonFinite parse_on_non_finite(std::string_view text) {
  constexpr std::string_view kRollback = "rollback:";
  if (text == "note") return {};
  if (text == "stop") return {OnNonFinite::Act::stop, 0};
  if (text.starts_with(kRollback)) {
    const std::string_view digits = text.substr(kRollback.size());
    std::uint64_t steps = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), steps);
    if (error == std::errc() && end == digits.data() + digits.size() && steps > 0) {
      return {OnNonFinite::Act::rollback, steps};
    }
  }
  throw Error(
      storage::StatusCode::invalid,
      fmt::format("'{}' is not one of note, stop and rollback:K, where K is how many steps may be skipped, as in "
                  "rollback:100",
                  text));
}

std::string to_string(const OnNonFinite& choice) {
  switch (choice.act) {
    case OnNonFinite::Act::stop:
      return "stop";
    case OnNonFinite::Act::rollback:
      return fmt::format("rollback:{}", choice.steps);
    default:
      return "note";
  }
}

}  // namespace holdfast
