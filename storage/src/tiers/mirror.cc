#include "holdfast/storage/tiers/mirror.h"

#include <algorithm>
#include <map>
#include <utility>

#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/formats/entries.h"
#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/time.h"
#include "run/publish_entry.h"
#include "run/version_files.h"

namespace holdfast::storage {
namespace {

bool is_missing(StatusCode code) {
  return code == StatusCode::not_found || code == StatusCode::corrupt || code == StatusCode::incomplete;
}

/// Of an access to the mirror. A name that is missing there means that its folder is, not that home dropped a version;
/// a torn entry may be whole after the next attempt.
Status of_mirror(Status status) {
  return is_missing(status.code()) ? Status(StatusCode::unreadable, status.message()) : status;
}

Status cancelled() { return {StatusCode::incomplete, "the copy was cancelled"}; }

/// Whether an entry's bytes are whole. A folder that was copied by hand may hold torn ones.
bool is_whole(const EntryName& entry, const std::string& bytes) {
  if (entry.kind == EntryKind::open) return decode_open(bytes).ok();
  if (entry.kind == EntryKind::note) return decode_note(bytes).ok();
  return decode_manifest(bytes).ok();
}

/// Publishes the bytes of a whole entry of home. A torn one of the same name, which an earlier attempt left behind, is
/// removed first; a whole one stays.
Status publish_copy(Store& store, const EntryName& entry, const std::string& bytes) {
  const std::string name = entry_name(entry.uid, entry.kind);
  const auto found = store.get(name);
  if (found && is_whole(entry, *found)) return {};
  if (!found && found.code() != StatusCode::not_found && found.code() != StatusCode::corrupt) return found.status();
  if (found.code() != StatusCode::not_found) {
    if (Status status = store.remove(name); !status.ok()) return status;
  }
  return publish_entry(store, name, bytes);
}

Status superseded(const OpenEntry& by, const Store& place) {
  return {StatusCode::superseded, "session " + by.uid.session + " on host " + excerpt(by.host) +
                                      " has opened the run in " + place.location() + " at " + excerpt(by.time)};
}

Status dropped_there(const Uid& uid, const Store& place) {
  return {StatusCode::unsupported,
          "version " + uid.short_text() + " was dropped in " + place.location() + " and cannot come back there"};
}

bool travels(const EntryName& entry, const std::string& bytes) {
  if (entry.kind == EntryKind::open) return decode_open(bytes).ok();
  const auto note = decode_note(bytes);
  return note && (note->kind == NoteKind::close || note->kind == NoteKind::death);
}

}  // namespace

Mirror::Mirror(const Store& home, Store& far, MirrorOptions options)
    : home_(home),
      far_(far),
      options_(std::move(options)),
      steps_(options_.steps != nullptr ? *options_.steps : steps_in_order()) {
  if (!options_.wall_time) options_.wall_time = time_text;
}

Status Mirror::open() {
  if (Status status = far_.prepare(); !status.ok()) return status;
  if (Status status = check_not_superseded(); !status.ok()) return status;
  // Dropping versions twice, or what home is just writing, would lose them.
  const auto is_ours = [&](const OpenEntry& open) { return open.uid.session == options_.session.session; };
  if (options_.drops && !options_.is_announced && !is_open_ &&
      std::any_of(history_.opens().begin(), history_.opens().end(), is_ours)) {
    History home;  // a session that took the run over there may have sent our entry
    if (Status status = home.refresh(home_); !status.ok()) return status;
    if (const OpenEntry* by = home.superseded_by(options_.session)) return superseded(*by, home_);
    return {StatusCode::invalid, far_.location() +
                                     " is the folder of the run itself, or of another of its mirrors, by another name: "
                                     "name a different folder"};
  }
  is_open_ = true;  // from here on our entry may be there
  return send_entries();
}

// As when a run is opened, both sides create first and list afterwards: a session that opens the run from this mirror
// finds our version in its listing, or we find its open entry in ours and report the version as superseded.
//
//   M1  list the mirror: a higher open → stop
//   M2  send the open entries and notes that it lacks
//   M3  copy the payload that it lacks, comparing digests with the manifest
//   M4  read the payload back
//   M5  publish the manifest, create-only
//   M6  make the manifest's name durable
//   M7  list the mirror again: a higher open → stop
//   M8  drop the mirror's older versions
Result<MirroredVersion> Mirror::copy(const Uid& uid) {
  MirroredVersion mirrored;
  mirrored.uid = uid;
  const std::string name = entry_name(uid, EntryKind::save);
  std::string text;
  Manifest manifest;
  std::map<std::string, std::uint64_t> copied;  // files, with their bytes
  Status status = steps_.perform({
      {"M1 list the mirror", [&] { return of_mirror(is_open_ ? check_not_superseded() : open()); }},
      {"M2 send entries", [&] { return of_mirror(send_entries()); }},
      {"M3 copy the payload",
       [&] {
         auto bytes = home_.get(name);
         if (!bytes) return bytes.status();
         auto decoded = decode_manifest(*bytes);
         if (!decoded) return decoded.status();
         text = *std::move(bytes);
         manifest = *std::move(decoded);
         return copy_payload(manifest, copied);
       }},
      {"M4 read the payload back",
       [&] {
         std::string damaged;
         Status status = read_back(manifest, damaged);
         // What was there before may be the remainder of a copy that was interrupted.
         if (status.ok() || damaged.empty() || copied.contains(damaged)) return of_mirror(status);
         if (status = far_.remove(damaged); !status.ok()) return status;
         if (status = copy_payload(manifest, copied); !status.ok()) return status;
         return of_mirror(read_back(manifest, damaged));
       }},
      {"M5 publish the manifest",
       [&] {
         // A name that this place has dropped would stay dropped.
         if (history_.is_dropped(uid)) return dropped_there(uid, far_);
         return of_mirror(publish_copy(far_, {uid, EntryKind::save}, text));
       }},
      {"M6 sync the journal", [&] { return of_mirror(far_.sync_folder("journal")); }},
      {"M7 list the mirror again", [&] { return of_mirror(check_not_superseded()); }},
      {"M8 drop older versions",
       [&] {
         if (options_.drops) mirrored.dropping = retain(uid, mirrored.other_lines);
         return mirrored.dropping.code() == StatusCode::superseded ? mirrored.dropping : Status();
       }},
  });
  if (!status.ok()) return status;
  for (const auto& [file, bytes] : copied) mirrored.bytes += bytes;
  mirrored.durability = durability();
  return mirrored;
}

std::string Mirror::durability() const { return far_.capabilities().durable_put ? "fsynced" : "process-safe"; }

std::vector<Uid> Mirror::versions() const {
  std::vector<Uid> versions;
  for (const VersionRef& version : history_.versions()) {
    if (!history_.is_dropped(version.uid)) versions.push_back(version.uid);
  }
  return versions;
}

Status Mirror::check_not_superseded() {
  if (Status status = history_.refresh(far_); !status.ok()) return status;
  const OpenEntry* by = history_.superseded_by(options_.session);
  return by == nullptr ? Status() : superseded(*by, far_);
}

Status Mirror::send_entries() {
  const auto names = home_.list("journal");
  if (!names) return names.status();
  for (const std::string& name : *names) {
    const auto entry = parse_entry_name(name);
    if (!entry || entry->kind == EntryKind::save || known_.contains(name)) continue;
    const auto bytes = home_.get(name, kMaxEntryBytes);
    if (!bytes && !is_permanent(bytes.code())) return bytes.status();
    // The session that took the run over at home announces itself.
    if (bytes && entry->kind == EntryKind::open) {
      const auto open = decode_open(*bytes);
      if (open && SessionOrder{open->epoch, open->uid.session} > options_.session) return superseded(*open, home_);
    }
    if (bytes && travels(*entry, *bytes)) {
      if (Status status = publish_copy(far_, *entry, *bytes); !status.ok()) return status;
    }
    if (!bytes || is_whole(*entry, *bytes)) known_.insert(name);  // a torn one may be whole later
  }
  return {};
}

Status Mirror::copy_payload(const Manifest& manifest, std::map<std::string, std::uint64_t>& copied) {
  for (const FileEntry& file : manifest.files) {
    if (const auto there = far_.open(file.name); there) {
      if ((*there)->bytes() == file.bytes) continue;  // M4 reads it back
      if (Status status = far_.remove(file.name); !status.ok()) return status;
    } else if (there.code() != StatusCode::not_found) {
      return there.status();
    }
    if (Status status = copy_whole(file.name, file.bytes, &file.digest); !status.ok()) return status;
    copied[file.name] = file.bytes;
  }
  return of_mirror(far_.sync_folder("data"));
}

/// `damaged`: the first file that does not match its digests.
Status Mirror::read_back(const Manifest& manifest, std::string& damaged) const {
  damaged.clear();
  const auto there = VersionReader::open(far_, manifest);
  if (!there) return there.status();
  std::uint64_t read = 0;
  const auto findings =
      there->verify([&](std::uint64_t done, std::uint64_t) { (void)proceeds(done - std::exchange(read, done)); });
  if (findings.empty()) return {};
  const Finding& finding = findings.front();
  if (finding.code != StatusCode::corrupt) return {finding.code, finding.file + ": " + finding.what};
  damaged = finding.file;
  return {StatusCode::unreadable,
          far_.location() + " does not give back what was written to it: " + damaged + ": " + finding.what};
}

Status Mirror::copy_whole(const std::string& name, std::uint64_t bytes, const Digest* expected) {
  const auto from = home_.open(name);
  if (!from) return from.status();
  if ((*from)->bytes() < bytes) return {StatusCode::corrupt, home_.location() + "/" + name + " is too short"};
  auto into = far_.create(name, bytes);
  // Not the version is gone, but the mirror's folder.
  if (into.code() == StatusCode::not_found) return {StatusCode::unreadable, into.status().message()};
  if (!into) return into.status();
  DigestStream digest;
  for (std::uint64_t done = 0; done < bytes;) {
    std::span<std::byte> piece = (*into)->buffer();
    piece = piece.first(std::min<std::uint64_t>(piece.size(), bytes - done));
    if (Status status = (*from)->read(done, piece); !status.ok()) return status;
    digest.update(piece);
    if (Status status = (*into)->advance(piece.size()); !status.ok()) return status;
    done += piece.size();
    if (!proceeds(piece.size())) return cancelled();
  }
  if (Status status = (*into)->finish(); !status.ok()) return status;
  if (expected == nullptr || digest.finish() == *expected) return {};
  (void)far_.remove(name);
  return {StatusCode::corrupt, home_.location() + "/" + name + " does not match its digest"};
}

// Drops what retention does not keep, and payload without a manifest: remainders of copies that were never finished.
// The note has the number of the version whose arrival caused it, which no other note has.
Status Mirror::retain(const Uid& arrived, std::set<Uid>& other_lines) {
  const auto data = far_.list("data");
  if (!data) return data.status();
  std::set<Uid> condemned;
  for (const Note& note : history_.notes()) {
    if (note.kind == NoteKind::death || note.kind == NoteKind::verdict) {
      condemned.insert(note.about.begin(), note.about.end());
    }
  }
  std::map<Uid, bool> whole;  // its manifest can be read, and its files are there
  const auto is_whole = [&](const Uid& uid) {
    const auto [found, is_new] = whole.try_emplace(uid, false);
    if (is_new && !history_.is_dropped(uid) && !condemned.contains(uid)) {
      const auto bytes = far_.get(entry_name(uid, EntryKind::save));
      const auto head = bytes ? decode_manifest_head(*bytes) : Result<ManifestHead>(bytes.status());
      if (!head) found->second = !is_missing(head.code());  // what cannot be read now is kept
      if (head)
        found->second = std::all_of(head->manifest.files.begin(), head->manifest.files.end(), [&](const auto& file) {
          return std::find(data->begin(), data->end(), file.name) != data->end();
        });
    }
    return found->second;
  };
  // Such a line is that of a session that could not read this mirror at its start, or whose copy arrived late.
  other_lines = ends_of_other_lines(history_, is_whole);
  std::set<Uid> pinned = other_lines;
  pinned.insert(arrived);
  const Uid noted{arrived.seq, options_.session.session};
  const std::string name = entry_name(noted, EntryKind::note);
  const RetentionPlan plan =
      plan_retention(history_, options_.retention, pinned, {}, [&](const Uid& uid) -> std::uint64_t {
        const auto bytes = far_.get(entry_name(uid, EntryKind::save));
        const auto manifest = bytes ? decode_manifest(*bytes) : Result<Manifest>(bytes.status());
        return manifest ? manifest->non_finite.value_or(0) : 0;
      });
  std::set<Uid> dropped(plan.drop.begin(), plan.drop.end());
  const auto live = live_files(far_, history_.versions());
  std::map<std::string, SessionOrder> sessions;
  for (const OpenEntry& open : history_.opens()) sessions[open.uid.session] = {open.epoch, open.uid.session};
  // Payload of a session that nothing is known of may belong to a later one, which is just copying it.
  const auto is_over = [&](const std::string& session) {
    const auto found = sessions.find(session);
    return found != sessions.end() && found->second <= options_.session;
  };
  std::set<std::string> orphans;
  std::set<Uid> about = dropped;
  for (const std::string& file : *data) {
    const auto payload = parse_payload_name(file);
    if (!payload || !live || live->contains(file) || !is_over(payload->uid.session)) continue;
    orphans.insert(file);
    about.insert(payload->uid);
  }
  if (about.empty()) return {};
  if (const auto before = far_.get(name, kMaxEntryBytes); before) {  // this session was interrupted here
    const auto note = decode_note(*before);
    const std::set<Uid> allowed = note ? std::set<Uid>(note->about.begin(), note->about.end()) : std::set<Uid>();
    std::erase_if(dropped, [&](const Uid& uid) { return !allowed.contains(uid); });
    std::erase_if(orphans, [&](const std::string& file) { return !allowed.contains(parse_payload_name(file)->uid); });
  } else {
    Note note;
    note.uid = noted;
    note.epoch = options_.session.epoch;
    note.kind = NoteKind::drop;
    note.about.assign(about.begin(), about.end());
    note.reason = dropped.empty() ? "remainders of copies that were not finished" : plan.reason;
    note.time = options_.wall_time();
    const auto text = encode_checked(note);
    if (!text) return text.status();
    if (Status status = publish_entry(far_, name, *text); !status.ok()) return status;
  }
  if (Status status = check_not_superseded(); !status.ok()) return status;
  const std::set<std::string> files = files_of(far_, dropped);
  if (Status status = remove_manifests(far_, dropped); !status.ok()) return status;
  std::vector<VersionRef> left = history_.versions();
  std::erase_if(left, [&](const VersionRef& version) { return dropped.contains(version.uid); });
  if (Status status = remove_unreferenced(far_, files, left); !status.ok()) return status;
  return remove_unreferenced(far_, orphans, left);
}

Status Mirror::copy_records() {
  if (Status status = send_entries(); !status.ok()) return status;
  for (const char* folder : {"metrics", "logs"}) {
    const auto names = home_.list(folder);
    if (!names) return names.status();
    for (const std::string& name : *names) {
      const auto record = home_.open(name);
      if (!record) continue;
      if (const auto there = far_.open(name); there) {
        if ((*there)->bytes() == (*record)->bytes()) continue;
        if (Status status = far_.remove(name); !status.ok()) return status;
      }
      if (Status status = copy_whole(name, (*record)->bytes(), nullptr); !status.ok()) return status;
    }
  }
  return {};
}

}  // namespace holdfast::storage
