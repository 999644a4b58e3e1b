#include <algorithm>
#include <utility>

#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/run/run_writer.h"
#include "run/version_files.h"

namespace holdfast::storage {
Result<std::vector<Uid>> RunWriter::prune(const Retention& retention, const std::set<Uid>& in_use) {
  // P1: plan over the current journal.
  if (Status status = check_not_superseded(); !status.ok()) return status;
  std::set<Uid> pinned = in_use;
  if (newest_) pinned.insert(*newest_);
  std::set<Uid> doubtful = doubtful_;
  for (const Note& note : history_.notes()) {
    if (note.kind == NoteKind::verdict) doubtful.insert(note.about.begin(), note.about.end());
  }
  if (newest_) doubtful.erase(*newest_);  // it loaded, or this session wrote it, despite any earlier verdict
  const RetentionPlan plan =
      plan_retention(history_, retention, pinned, doubtful, [this](const Uid& uid) { return non_finite_of(uid); });
  if (plan.kept_finite && plan.kept_finite != kept_finite_) say_(plan.reason);
  kept_finite_ = plan.kept_finite;
  if (plan.drop.empty()) return plan.drop;
  if (Status status = drop(plan.drop, plan.reason); !status.ok()) return status;
  return plan.drop;
}

/// Versions whose writer did not count, or whose manifest cannot be read now, count as finite.
std::uint64_t RunWriter::non_finite_of(const Uid& uid) {
  if (const auto known = non_finite_.find(uid); known != non_finite_.end()) return known->second;
  const auto bytes = store_.get(entry_name(uid, EntryKind::save));
  const auto head = bytes ? decode_manifest_head(*bytes) : Result<ManifestHead>(bytes.status());
  if (!head) return 0;
  return non_finite_[uid] = head->manifest.non_finite.value_or(0);
}

// Prune. As in a takeover, both sides create first and list afterwards: a session that opens the run from a version
// named in our note sees the note (and chooses again), or we see its open (and stop).
//
//   P1  list, plan
//   P2  note what is dropped, durable: nothing vanishes without a record
//   P3  list: a higher open → stop, nothing is removed
//   P4  remove the manifests, and make that durable
//   P5  remove payload that no manifest refers to
Status RunWriter::drop(const std::vector<Uid>& versions, const std::string& reason) {
  if (ended_) return *ended_;
  std::set<Uid> dropped;
  for (const Uid& uid : versions) {
    if (newest_ == uid) {
      return {StatusCode::invalid, "version " + uid.short_text() + " is the newest of this run and cannot be dropped"};
    }
    dropped.insert(uid);
  }
  if (dropped.empty()) return {};
  const std::set<std::string> files = files_of(store_, dropped);
  return steps_.perform({
      {"P2 note the drop",
       [&] {
         Note note;
         note.kind = NoteKind::drop;
         note.about = versions;
         note.reason = reason;
         return publish_note(std::move(note), /*durable=*/true);
       }},
      {"P3 list", [&] { return check_not_superseded(); }},
      {"P4 remove the manifests", [&] { return remove_manifests(store_, dropped); }},
      {"P5 remove the payload",
       [&] {
         std::vector<VersionRef> left = history_.versions();
         std::erase_if(left, [&](const VersionRef& version) { return dropped.contains(version.uid); });
         return remove_unreferenced(store_, files, left);
       }},
  });
}

Result<std::size_t> RunWriter::remove_orphans() {
  if (ended_) return *ended_;
  // Data first, journal afterwards, so that the journal shows what a closed session publishes in between.
  auto data = store_.list("data");
  if (!data) return data.status();
  for (const std::string& name : *data) {  // numbers that may never appear in a manifest
    if (const auto payload = parse_payload_name(name)) last_seq_ = std::max(last_seq_, payload->uid.seq);
  }
  if (Status status = check_not_superseded(); !status.ok()) return status;
  std::map<std::string, SessionOrder> sessions;
  for (const OpenEntry& open : history_.opens()) sessions[open.uid.session] = {open.epoch, open.uid.session};
  const auto closed = [&](std::string_view session) {
    const auto found = sessions.find(std::string(session));
    return found != sessions.end() && found->second < order();
  };

  std::vector<std::string> orphans;
  std::set<Uid> about;
  if (const auto live = live_files(store_, history_.versions())) {
    for (const std::string& name : *data) {
      const auto payload = parse_payload_name(name);
      if (!payload || live->contains(name) || !closed(payload->uid.session)) continue;
      orphans.push_back(name);
      if (!history_.is_dropped(payload->uid)) about.insert(payload->uid);
    }
  }
  // An orphan's session may be slow rather than dead, and may still publish the manifest, though never acknowledge it.
  // So this is a drop with P2 and P3: no session resumes from a version whose payload we remove.
  if (!about.empty()) {
    Note note;
    note.kind = NoteKind::drop;
    note.about.assign(about.begin(), about.end());
    note.reason = "left behind, never acknowledged, by sessions that are over";
    note.details["orphans"] = true;
    if (Status status = publish_note(std::move(note), /*durable=*/true); !status.ok()) return status;
    if (Status status = check_not_superseded(); !status.ok()) return status;
  }
  std::size_t removed = 0;
  for (const std::string& name : orphans) {
    if (Status status = store_.remove(name); !status.ok()) return status;
    ++removed;
  }
  // A session without an open entry is over if this writer holds the host lock, so that no other process of this host
  // can be that session.
  auto staged = store_.remove_staged([&](std::string_view session) {
    return session != open_.uid.session && (closed(session) || (lock_ && !sessions.contains(std::string(session))));
  });
  if (!staged) return staged.status();
  return removed + *staged;
}

}  // namespace holdfast::storage
