// Only this module builds and parses the object names of a run.
//
//   journal/000001-7f3a9c1e.open.json
//   journal/000042-7f3a9c1e.save.json            version 42
//   journal/000043-51d0aa02.note.json
//   data/000042-7f3a9c1e.r0of2.safetensors
//   metrics/000001-7f3a9c1e.jsonl
//   logs/000001-7f3a9c1e.log
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::storage {

/// The highest number a name may have: fifteen digits, which counting never reaches.
inline constexpr std::uint64_t kMaxSeq = 999'999'999'999'999;

/// A sequence number and the session that drew it: unique over all sessions, hosts and tiers, never reused.
struct Uid {
  std::uint64_t seq = 0;
  std::string session;  // 8 lower-case hex digits
  friend auto operator<=>(const Uid&, const Uid&) = default;
  /// "000042-7f3a9c1e"; the number has at least six digits.
  std::string text() const;
  /// The short form for users: "42-7f3a".
  std::string short_text() const;
  static std::optional<Uid> parse(std::string_view text);
};

/// Exactly 8 lower-case hex digits.
bool is_session_id(std::string_view text);
/// A new id from the kernel's random source.
std::string random_session_id();

enum class EntryKind { open, save, note };

struct EntryName {
  Uid uid;
  EntryKind kind = EntryKind::note;
};

std::string entry_name(const Uid& uid, EntryKind kind);
/// Empty for anything that is not exactly a name this library writes: a foreign file, a temporary, a twin "(1)".
std::optional<EntryName> parse_entry_name(std::string_view object_name);

struct PayloadName {
  Uid uid;
  int rank = 0;
  int world_size = 1;
};

std::string payload_name(const PayloadName& payload);
std::optional<PayloadName> parse_payload_name(std::string_view object_name);

std::string metrics_name(const Uid& open);
std::string log_name(const Uid& open);

}  // namespace holdfast::storage
