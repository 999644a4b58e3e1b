#include "holdfast/storage/stores/object_name.h"

#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <random>

#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

constexpr std::size_t kSessionDigits = 8;
constexpr std::size_t kMinSeqDigits = 6;
// A number with more digits was not reached by counting, so the name is foreign. Treating it as the highest number seen
// would leave no higher numbers.
constexpr std::size_t kMaxSeqDigits = 15;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// A number as this library writes it: digits only, no leading zero, within the type's range.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  if (text.empty() || !is_digit(text.front()) || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  Number number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (text.size() < suffix.size() || text.substr(text.size() - suffix.size()) != suffix) return false;
  text.remove_suffix(suffix.size());
  return true;
}

std::string_view suffix_of(EntryKind kind) {
  switch (kind) {
    case EntryKind::open:
      return ".open.json";
    case EntryKind::save:
      return ".save.json";
    case EntryKind::note:
      return ".note.json";
  }
  return "";
}

}  // namespace

std::string Uid::text() const {
  std::string digits = std::to_string(seq);
  if (digits.size() < kMinSeqDigits) digits.insert(0, kMinSeqDigits - digits.size(), '0');
  return digits + "-" + session;
}

std::string Uid::short_text() const { return std::to_string(seq) + "-" + session.substr(0, 4); }

std::optional<Uid> Uid::parse(std::string_view text) {
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos || dash < kMinSeqDigits || dash > kMaxSeqDigits) return std::nullopt;
  std::string_view digits = text.substr(0, dash);
  const std::string_view session = text.substr(dash + 1);
  if (!is_session_id(session)) return std::nullopt;
  // Leading zeros only pad the number to six digits.
  if (digits.size() == kMinSeqDigits) {
    digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
  }
  const auto seq = parse_number<std::uint64_t>(digits);
  if (!seq || *seq == 0) return std::nullopt;
  return Uid{*seq, std::string(session)};
}

bool is_session_id(std::string_view text) {
  return text.size() == kSessionDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
}

std::string random_session_id() {
  std::uint32_t number = 0;
  if (getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) number = std::random_device{}();
  std::string id;
  append_hex(id, number, kSessionDigits);
  return id;
}

std::string entry_name(const Uid& uid, EntryKind kind) {
  return "journal/" + uid.text() + std::string(suffix_of(kind));
}

std::optional<EntryName> parse_entry_name(std::string_view object_name) {
  if (!take_prefix(object_name, "journal/")) return std::nullopt;
  for (EntryKind kind : {EntryKind::open, EntryKind::save, EntryKind::note}) {
    std::string_view text = object_name;
    if (!take_suffix(text, suffix_of(kind))) continue;
    const auto uid = Uid::parse(text);
    if (!uid) return std::nullopt;
    return EntryName{*uid, kind};
  }
  return std::nullopt;
}

std::string payload_name(const PayloadName& payload) {
  return "data/" + payload.uid.text() + ".r" + std::to_string(payload.rank) + "of" +
         std::to_string(payload.world_size) + ".safetensors";
}

std::optional<PayloadName> parse_payload_name(std::string_view object_name) {
  if (!take_prefix(object_name, "data/") || !take_suffix(object_name, ".safetensors")) return std::nullopt;
  const std::size_t dot = object_name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const auto uid = Uid::parse(object_name.substr(0, dot));
  std::string_view place = object_name.substr(dot);
  if (!uid || !take_prefix(place, ".r")) return std::nullopt;
  const std::size_t of = place.find("of");
  if (of == std::string_view::npos) return std::nullopt;
  const auto rank = parse_number<int>(place.substr(0, of));
  const auto world_size = parse_number<int>(place.substr(of + 2));
  if (!rank || !world_size || *rank >= *world_size) return std::nullopt;
  return PayloadName{*uid, *rank, *world_size};
}

std::string metrics_name(const Uid& open) { return "metrics/" + open.text() + ".jsonl"; }

std::string log_name(const Uid& open) { return "logs/" + open.text() + ".log"; }

}  // namespace holdfast::storage
