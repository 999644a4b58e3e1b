#include "inspect/version_rows.h"

#include <map>
#include <new>
#include <set>

#include "holdfast/storage/parallel.h"
#include "inspect/checkpoint.h"

namespace holdfast::tools {

using storage::NoteKind;
using storage::Status;
using storage::StatusCode;
using storage::Uid;

namespace {

VersionRow examine(const RunFolder& run, const VerifiedHint& hint, const Uid& uid) {
  VersionRow row;
  row.uid = uid;
  auto checkpoint = open_version_head(run, uid);
  if (!checkpoint) {
    row.status = checkpoint.status();
    return row;
  }
  row.status = checkpoint->damage;
  row.verified = verified(hint, uid, checkpoint->manifest_digest);
  row.bytes = checkpoint->manifest.payload_bytes();
  row.tensors = checkpoint->tensors;
  row.head = std::move(checkpoint->manifest);
  row.head->files.clear();
  return row;
}

/// For each session on the line to `tip`, the highest number of its versions that are the past of `tip`: `tip`'s own
/// session, the session it continues, and so on.
std::map<std::string, std::uint64_t> line_to(const RunFolder& run, const Uid& tip) {
  std::map<std::string, const storage::OpenEntry*> opens;
  for (const storage::OpenEntry& open : run.history.opens()) opens[open.uid.session] = &open;
  std::map<std::string, std::uint64_t> line;
  std::optional<Uid> at = tip;
  while (at && line.emplace(at->session, at->seq).second) {
    const auto open = opens.find(at->session);
    at = open == opens.end() ? std::nullopt : open->second->base;
  }
  return line;
}

void add_notes(const RunFolder& run, std::vector<VersionRow>& rows) {
  std::map<Uid, VersionRow*> by_uid;
  for (VersionRow& row : rows) by_uid[row.uid] = &row;
  for (const storage::Note& note : run.history.notes()) {
    for (const Uid& uid : note.about) {
      const auto row = by_uid.find(uid);
      if (row == by_uid.end()) continue;
      if (note.kind == NoteKind::drop) row->second->dropping = true;
      if (note.kind == NoteKind::verdict) {
        row->second->notes.push_back("passed over by session " + note.uid.session.substr(0, 4) + ": " + note.reason);
      }
      if (note.kind == NoteKind::death) row->second->notes.push_back("a program died after loading it: " + note.reason);
    }
  }
}

}  // namespace

std::vector<VersionRow> version_rows(const RunFolder& run) {
  const VerifiedHint hint = read_verified(run);
  const auto& versions = run.history.versions();
  std::vector<VersionRow> rows(versions.size());
  (void)storage::in_parallel(rows.size(), storage::thread_count(), [&](std::size_t i) {
    try {
      rows[i] = examine(run, hint, versions[i].uid);
    } catch (const std::bad_alloc&) {  // the other rows are still examined
      rows[i].uid = versions[i].uid;
      rows[i].status = Status(StatusCode::unreadable, "no memory");  // short enough to need no memory of its own
    }
    return Status();
  });
  // A version that a living session removes during this listing is gone, not torn.
  std::erase_if(rows, [](const VersionRow& row) { return row.status.code() == StatusCode::not_found; });
  add_notes(run, rows);
  return rows;
}
/// What the next start will find when it tries each version.
std::map<Uid, Status> known_failures(const std::vector<VersionRow>& rows) {
  std::map<Uid, Status> failed;
  for (const VersionRow& row : rows) {
    if (!row.status.ok()) {
      failed.emplace(row.uid, row.status);
    } else if (row.verified && !row.verified->ok) {
      failed.emplace(row.uid, Status(StatusCode::corrupt, "holdfast verify found damage in it"));
    }
  }
  return failed;
}

void mark_left_behind(const RunFolder& run, const Uid& next, std::vector<VersionRow>& rows) {
  const auto line = line_to(run, next);
  for (VersionRow& row : rows) {
    const auto session = line.find(row.uid.session);
    const bool newer = row.uid.session == next.session && row.uid.seq > next.seq;  // in that case it failed to load
    row.left_behind = row.status.ok() && !newer && (session == line.end() || row.uid.seq > session->second);
  }
}

std::vector<Uid> dropped_versions(const RunFolder& run, const std::vector<VersionRow>& rows) {
  std::set<Uid> gone;
  for (const storage::Note& note : run.history.notes()) {
    if (note.kind == NoteKind::drop) gone.insert(note.about.begin(), note.about.end());
  }
  for (const VersionRow& row : rows) gone.erase(row.uid);
  return {gone.begin(), gone.end()};
}

}  // namespace holdfast::tools
