// The journal's other entries: a session took over (open), and other events (note). Small, immutable JSON whose last
// line digests all bytes before it, like the manifest's. FORMAT.md gives the grammar.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/object_name.h"

namespace holdfast::storage {

/// The largest open entry or note: a reader treats a larger one as damaged.
inline constexpr std::uint64_t kMaxEntryBytes = std::uint64_t{1} << 24;

/// A session took the run over. Never deleted.
struct OpenEntry {
  Uid uid;
  std::uint64_t epoch = 0;  // highest seen + 1; (epoch, session) orders sessions
  std::optional<Uid> base;  // the version it resumes from; empty: from scratch
  bool rewind = false;      // the user chose `base` over newer versions, or chose to start from scratch
  std::string host;
  std::int64_t pid = 0;
  std::string platform;
  std::string program;  // identifies the program's build; see Note::program
  std::string time;
  std::string job = {};  // of the scheduler or launcher that starts the same command again; empty: none
  /// The newest version at home that `base` does not continue, because the run was continued in two places apart. It is
  /// never dropped by a plan.
  std::optional<Uid> left_behind = {};
};

enum class NoteKind {
  attempt,  // a session is about to load `about`
  verdict,  // `about` did not load; `reason` says why
  drop,     // every version of `about` is about to be removed
  close,    // the session ended; `reason` says why, `details` carries time, steps, lost work
  death,    // the process died of a diagnosed cause (`reason`), `details.steps` after loading `about`
};

struct Note {
  Uid uid;
  std::uint64_t epoch = 0;
  NoteKind kind = NoteKind::close;
  std::vector<Uid> about;
  std::string reason;
  std::string program;  // deaths of another build do not count against this one
  std::string time;
  nlohmann::json details = nlohmann::json::object();
};

std::string_view to_string(NoteKind kind);

std::string encode(const OpenEntry& entry);
std::string encode(const Note& note);
/// encode(), with all checks of the decoder: `invalid` for an entry that the decoder would refuse.
Result<std::string> encode_checked(const OpenEntry& entry);
Result<std::string> encode_checked(const Note& note);
Result<OpenEntry> decode_open(std::string_view bytes);
Result<Note> decode_note(std::string_view bytes);

}  // namespace holdfast::storage
