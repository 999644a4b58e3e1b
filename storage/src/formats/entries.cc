#include "holdfast/storage/formats/entries.h"

#include <array>

#include "formats/entry_text.h"
#include "holdfast/storage/text/text.h"

namespace holdfast::storage {

using nlohmann::json;

namespace {

constexpr std::array<NoteKind, 5> kNoteKinds{NoteKind::attempt, NoteKind::verdict, NoteKind::drop, NoteKind::close,
                                             NoteKind::death};

std::optional<NoteKind> parse_note_kind(std::string_view name) {
  for (NoteKind kind : kNoteKinds) {
    if (to_string(kind) == name) return kind;
  }
  return std::nullopt;
}

/// Refuses text that the decoder would refuse. Runs the decoder itself, because these entries are small.
template <class Decode>
Result<std::string> checked(std::string text, const Decode& decode) {
  if (text.size() > kMaxEntryBytes) {
    return Status(StatusCode::invalid, "a journal entry of " + std::to_string(text.size()) +
                                           " bytes could not be read back, which is possible up to " +
                                           std::to_string(kMaxEntryBytes) + ": shorten its reason and details");
  }
  if (const auto back = decode(text); !back) {
    return Status(StatusCode::invalid, "a journal entry could not be read back: " + back.status().message());
  }
  return text;
}

}  // namespace

std::string_view to_string(NoteKind kind) {
  switch (kind) {
    case NoteKind::attempt:
      return "attempt";
    case NoteKind::verdict:
      return "verdict";
    case NoteKind::drop:
      return "drop";
    case NoteKind::close:
      return "close";
    case NoteKind::death:
      return "death";
  }
  return "?";
}

std::string encode(const OpenEntry& entry) {
  EntryWriter writer("open");
  writer.field("uid", entry.uid.text());
  writer.field("epoch", entry.epoch);
  writer.field("base", entry.base ? json(entry.base->text()) : json());
  writer.field("rewind", entry.rewind);
  writer.field("host", entry.host);
  writer.field("pid", entry.pid);
  writer.field("platform", entry.platform);
  writer.field("program", entry.program);
  writer.field("time", entry.time);
  if (!entry.job.empty()) writer.field("job", entry.job);
  if (entry.left_behind) writer.field("left_behind", entry.left_behind->text());
  return std::move(writer).finish();
}

std::string encode(const Note& note) {
  json about = json::array();
  for (const Uid& uid : note.about) about.push_back(uid.text());
  EntryWriter writer("note");
  writer.field("uid", note.uid.text());
  writer.field("epoch", note.epoch);
  writer.field("kind", std::string(to_string(note.kind)));
  writer.field("about", about);
  writer.field("reason", note.reason);
  writer.field("program", note.program);
  writer.field("time", note.time);
  writer.object("details", note.details);
  return std::move(writer).finish();
}

Result<std::string> encode_checked(const OpenEntry& entry) { return checked(encode(entry), decode_open); }

Result<std::string> encode_checked(const Note& note) {
  if (Status status = check_json(note.details, 1, "details"); !status) return status;
  return checked(encode(note), decode_note);
}

Result<OpenEntry> decode_open(std::string_view bytes) {
  const auto entry = read_entry(bytes, "open");
  if (!entry) return entry.status();
  FieldReader fields(*entry, "the open entry");
  OpenEntry open;
  open.uid = fields.uid("uid");
  open.epoch = fields.number("epoch");
  open.base = fields.uid_or_null("base");
  open.rewind = fields.boolean("rewind");
  open.host = fields.text("host");
  open.pid = fields.integer("pid");
  open.platform = fields.text("platform");
  open.program = fields.text("program");
  open.time = fields.text("time");
  if (entry->contains("job")) open.job = fields.text("job");
  if (entry->contains("left_behind")) open.left_behind = fields.uid("left_behind");
  if (!fields.ok()) return fields.status();
  return open;
}

Result<Note> decode_note(std::string_view bytes) {
  const auto entry = read_entry(bytes, "note");
  if (!entry) return entry.status();
  FieldReader fields(*entry, "the note entry");
  Note note;
  note.uid = fields.uid("uid");
  note.epoch = fields.number("epoch");
  const std::string kind = fields.text("kind");
  note.about = fields.uids("about");
  note.reason = fields.text("reason");
  note.program = fields.text("program");
  note.time = fields.text("time");
  note.details = fields.object("details");
  if (!fields.ok()) return fields.status();
  const auto known = parse_note_kind(kind);
  if (!known) {
    return Status(StatusCode::unsupported, "the note entry has the kind " + in_quotes(kind) +
                                               ", which this Holdfast does not know: use a newer Holdfast");
  }
  note.kind = *known;
  return note;
}

}  // namespace holdfast::storage
