#include "holdfast/runtime/policy/save_every.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/units.h"

namespace holdfast {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

struct Count {
  std::uint64_t number;
  std::string_view unit;
};

std::optional<Count> parse_count(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  return Count{number, trimmed({end, static_cast<std::size_t>(text.data() + text.size() - end)})};
}

template <class Value>
void set_once(Value& value, Value to, std::string_view part) {
  if (to == Value{}) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("'{}' is not an interval: write 'never' to save only at the end", part));
  }
  if (value != Value{}) {
    throw Error(storage::StatusCode::invalid, fmt::format("'{}' is the second interval of its kind", part));
  }
  value = to;
}

}  // namespace

SaveEvery parse_save_every(std::string_view text) {
  SaveEvery every;
  if (trimmed(text) == "never") return every;
  while (true) {
    const auto comma = text.find(',');
    const auto part = trimmed(text.substr(0, comma));
    const auto count = parse_count(part);
    if (count && (count->unit.empty() || count->unit == "step" || count->unit == "steps")) {
      set_once(every.steps, count->number, part);
    } else if (count && (count->unit == "epoch" || count->unit == "epochs")) {
      set_once(every.epochs, count->number, part);
    } else if (const auto time = storage::parse_duration(part)) {
      set_once(every.time, *time, part);
    } else {
      throw Error(storage::StatusCode::invalid,
                  fmt::format("'{}' is not an interval: write 500 or 500steps, 30s, 10min or 2h, 1epoch, several with "
                              "commas between them, or never",
                              part));
    }
    if (comma == std::string_view::npos) return every;
    text.remove_prefix(comma + 1);
  }
}

std::string to_string(const SaveEvery& every) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  const auto count = [&](std::uint64_t number, std::string_view noun) {
    if (number == 0) return;
    add(number == 1 ? std::string(noun) : fmt::format("{} {}s", number, noun));
  };
  count(every.steps, "step");
  count(every.epochs, "epoch");
  if (every.time.count() != 0) add(storage::format_duration(every.time));
  return text.empty() ? "never" : text;
}

}  // namespace holdfast
