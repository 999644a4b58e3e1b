#include "holdfast/storage/run/run_writer.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/time.h"

namespace holdfast::storage {
namespace {

double system_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Each session removes staged files once, at its start, so only this many starts between stage() and publish() could
// make all attempts fail.
constexpr int kStagings = 16;

/// Gives a staged entry its name. A session of another host that has not seen our open entry may treat this writer as
/// dead and remove the staged entry: then it is staged again.
Status publish_staged(Store& store, std::unique_ptr<StagedObject> staged, const std::string& name,
                      const std::string& bytes, bool durable = true) {
  Status status = staged->publish();
  for (int i = 1; i < kStagings && status.code() == StatusCode::not_found; ++i) {
    auto again = store.stage(name, bytes, durable);
    if (!again) return again.status();
    status = (*again)->publish();
  }
  return status;
}

/// Publishes a whole entry under its name. `durable` is false for entries that nothing depends on.
Status publish_entry(Store& store, const std::string& name, const std::string& bytes, bool durable = true) {
  auto staged = store.stage(name, bytes, durable);
  if (!staged) return staged.status();
  if (Status status = publish_staged(store, std::move(*staged), name, bytes, durable); !status.ok()) return status;
  return durable ? store.sync_folder("journal") : Status();
}

/// All files that the existing versions refer to. Empty if a manifest cannot be read, because its files are unknown.
std::optional<std::set<std::string>> live_files(const Store& store, const std::vector<VersionRef>& versions) {
  std::set<std::string> live;
  for (const VersionRef& version : versions) {
    auto bytes = store.get(entry_name(version.uid, EntryKind::save));
    if (!bytes) return std::nullopt;
    const auto head = decode_manifest_head(*bytes);
    if (!head) return std::nullopt;
    for (const FileEntry& file : head->manifest.files) live.insert(file.name);
  }
  return live;
}

/// Two sessions cannot lose each other's versions because both create first and list afterwards. If creates do not
/// exclude each other, or a listing may lack a created object, no version can be acknowledged.
Status check_can_commit(const Store& store) {
  const Capabilities can = store.capabilities();
  const char* lack = !can.create_only_enforced ? "lets two sessions create the same file"
                     : !can.list_after_create  ? "may list a folder without what was just created in it"
                                               : nullptr;
  if (lack == nullptr) return {};
  return {StatusCode::unsupported, store.location() + " is on storage that " + lack +
                                       ", so no version saved there could be relied on; choose another folder with "
                                       "--holdfast.dir. Versions that are there can be read"};
}

Status superseded(const std::string& run, const OpenEntry& by) {
  return {StatusCode::superseded, "run " + run + " was taken over by session " + by.uid.session + " on host " +
                                      excerpt(by.host) + " (pid " + std::to_string(by.pid) + ") at " +
                                      excerpt(by.time) + "; this session stops and saves nothing more"};
}

}  // namespace

RunWriter::RunWriter(Store& store, const OpenRequest& request)
    : store_(store),
      steps_(request.steps ? *request.steps : steps_in_order()),
      run_(request.run),
      program_(request.program),
      wall_time_(request.wall_time),
      seconds_(request.seconds),
      pause_(request.pause),
      say_(request.say) {
  if (!wall_time_) wall_time_ = time_text;
  if (!seconds_) seconds_ = system_seconds;
  if (!pause_) pause_ = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
  if (!say_) say_ = [](const std::string&) {};
  open_.uid.session = request.session;
  open_.host = request.host;
  open_.pid = request.pid;
  open_.platform = request.platform;
  open_.program = request.program;
  open_.job = request.job;
}

Uid RunWriter::next_uid() {
  last_seq_ = std::max(last_seq_, history_.highest_seq()) + 1;
  return {last_seq_, open_.uid.session};
}

SessionOrder RunWriter::order() const { return {open_.epoch, open_.uid.session}; }

// Open for writing. Both sides of a takeover create their entry first and list afterwards: a version that the other
// session acknowledged was created before it listed and found no higher open, so before ours, so our listing shows it.
//
//   O1  list, choose a base
//   O2  note the attempt (for readers of the journal; nothing depends on it)
//   O3  load the base, digests checked, before anything else changes: a start by mistake does no damage
//   O4  create our open with the highest epoch seen + 1, durable
//   O5  list again: a higher open → stop; a base other than the one loaded (a slower session saved in the meantime,
//       or dropped ours) → again from O1
Result<std::unique_ptr<RunWriter>> RunWriter::open(Store& store, const OpenRequest& request) {
  if (!is_session_id(request.session)) {
    return Status(StatusCode::invalid, in_quotes(request.session) + " is not a session's id, 8 hexadecimal digits");
  }
  if (!is_utf8(request.run)) {
    return Status(StatusCode::invalid,
                  "the run's name " + in_quotes(request.run) + " is not UTF-8: choose another one with --holdfast.run");
  }
  std::unique_ptr<RunWriter> writer(new RunWriter(store, request));
  if (Status status = store.prepare(); !status.ok()) return status;
  if (Status status = check_can_commit(store); !status.ok()) return status;
  auto lock =
      store.lock("pid " + std::to_string(request.pid) + " on host " + request.host + " since " + writer->wall_time_());
  if (lock) {
    writer->lock_ = std::move(*lock);
    if (const std::string before = writer->lock_->left_by(); !before.empty()) {
      writer->say_("the run was still locked for " + before +
                   ", which is gone: a process that it started keeps the lock; this session takes the run over");
    }
  } else if (lock.code() == StatusCode::busy && !request.take_over) {
    return Status(StatusCode::busy, "run " + request.run + " in " + store.location() + " is already running as " +
                                        lock.status().message() +
                                        "; wait for it, end it, or take the run over with --holdfast.take-over");
  } else if (lock.code() != StatusCode::busy && lock.code() != StatusCode::unsupported) {
    return lock.status();
  }

  ChooseOptions options;
  options.from = request.from;
  options.fresh = request.fresh;
  options.job = request.job;
  options.program = request.program;
  for (bool settled = false; !settled;) {
    bool again = false;
    Status status = writer->steps_.perform({
        {"O1 list and choose a base", [&] { return writer->choose(options); }},
        {"O2 note the attempt", [&] { return writer->note_attempt(); }},
        {"O3 load the base", [&] { return writer->load_base(request, options, again); }},
        {"O4 create the open entry", [&] { return writer->create_open(); }},
        {"O5 list again", [&] { return writer->confirm_base(options, again); }},
    });
    if (again) continue;
    if (!status.ok()) return status;
    settled = true;
  }
  writer->newest_ = writer->open_.base;
  return writer;
}

Status RunWriter::choose(const ChooseOptions& options) {
  if (Status status = history_.refresh(store_); !status.ok()) return status;
  if (history_.highest_seq() > kMaxSeq - 1'000'000'000) {
    return {StatusCode::invalid,
            "a name in journal/ or data/ of " + store_.location() + " has the number " +
                std::to_string(history_.highest_seq()) +
                ", which no run reaches by counting, and leaves too few numbers to continue; nothing was "
                "changed. Move that file away"};
  }
  auto choice = choose_base(history_, options);
  if (!choice) return choice.status();
  choice_ = std::move(*choice);
  open_.base = choice_.version ? std::optional(choice_.version->uid) : std::nullopt;
  open_.rewind = choice_.rewind;
  return {};
}

Status RunWriter::note_attempt() {
  if (!open_.base) return {};
  Note attempt;
  attempt.kind = NoteKind::attempt;
  attempt.about = {*open_.base};
  attempt.reason = choice_.reason;
  return publish_note(std::move(attempt), /*durable=*/false);
}

Status RunWriter::load_base(const OpenRequest& request, ChooseOptions& options, bool& again) {
  if (!open_.base) return {};
  const Uid base = *open_.base;
  Status status;
  for (const double seconds : {0.0, 0.2, 1.0}) {  // an access that fails may succeed a moment later
    if (seconds > 0) pause_(seconds);
    auto version = VersionReader::open(store_, base);
    status = version ? (request.load ? request.load(*version) : Status()) : version.status();
    if (status.code() != StatusCode::unreadable) break;
  }
  if (status.code() == StatusCode::unreadable) {
    return {StatusCode::unreadable, "version " + base.short_text() + " cannot be read now: " + status.message() +
                                        "; nothing was changed. Try again, or choose an older version with "
                                        "--holdfast.from"};
  }
  const bool vanished = status.code() == StatusCode::not_found;  // dropped by a session that is still running
  if (status.code() != StatusCode::corrupt && status.code() != StatusCode::incomplete && !vanished) return status;
  options.failed.emplace(base, status);
  if (vanished) {
    again = true;
    return status;
  }
  say_("version " + base.short_text() + " is passed over: " + status.message());
  Note verdict;
  verdict.kind = NoteKind::verdict;
  verdict.about = {base};
  verdict.reason = std::string(to_string(status.code())) + ": " + status.message();
  // Not durable: the verdict is for readers of the journal, and the next session would reach it again.
  const Status noted = publish_note(std::move(verdict), /*durable=*/false);
  again = noted.ok();
  return noted.ok() ? status : noted;
}

Status RunWriter::create_open() {
  open_.uid = next_uid();
  open_.epoch = history_.highest_epoch() + 1;
  open_.time = wall_time_();
  const auto text = encode_checked(open_);
  if (!text) return text.status();
  return publish_entry(store_, entry_name(open_.uid, EntryKind::open), *text);
}

Status RunWriter::confirm_base(const ChooseOptions& options, bool& again) {
  if (Status status = check_not_superseded(); !status.ok()) return status;
  auto choice = choose_base(history_, options);
  if (!choice) return choice.status();
  const auto uid = choice->version ? std::optional(choice->version->uid) : std::nullopt;
  if (uid == open_.base) return {};
  again = true;
  say_("version " + (uid ? uid->short_text() : std::string("none")) +
       " is the latest now: another session was still saving; loading again");
  return {};
}

Status RunWriter::check_not_superseded() {
  if (ended_) return *ended_;
  if (Status status = history_.refresh(store_); !status.ok()) return status;
  const OpenEntry* by = history_.superseded_by(order());
  if (!by) return {};
  ended_ = superseded(run_, *by);
  return *ended_;
}

// Save. From S5 on the version exists for all readers; at S8 it is acknowledged, so that nothing can remove it.
//
//   S1  draw an unused number
//   S2  write the payload under its own name, hashing, and make its bytes durable
//   S3  gather every rank's table
//   S4  make the payload's name durable, in parallel with writing the manifest durably under a temporary name
//   S5  publish the manifest, create-only
//   S6  make the manifest's name durable
//   S7  list: a higher open → not acknowledged, stop
//   S8  acknowledge
Result<SavedVersion> RunWriter::save(SaveRequest request) {
  if (ended_) return *ended_;
  const double begin = seconds_();
  SavedVersion saved;
  Manifest manifest;
  std::string payload;
  std::vector<PayloadTable> tables;
  std::string text;  // of the manifest
  std::unique_ptr<StagedObject> staged;
  bool has_payload = false;
  bool published = false;
  bool acknowledged = false;

  // Values that could not be read back are refused before any payload is written.
  manifest.metrics = std::move(request.metrics);
  manifest.values = std::move(request.values);
  manifest.made_by = std::move(request.made_by);
  if (Status status = check_values(manifest); !status.ok()) return status;

  Status status = steps_.perform({
      {"S1 draw the number",
       [&] {
         saved.uid = manifest.uid = next_uid();
         payload = payload_name({saved.uid, 0, 1});
         return Status();
       }},
      {"S2 write the payload",
       [&] {
         auto table = write_payload(store_, payload,
                                    {{"format", "pt"}, {"holdfast.uid", saved.uid.text()}, {"holdfast.run", run_}},
                                    std::move(request.tensors));
         if (!table) return table.status();
         has_payload = true;
         tables.push_back(std::move(*table));
         return Status();
       }},
      {"S3 gather the tables",
       [&] {
         Status described = describe(request, std::move(tables), manifest);
         return described.ok() && request.inspect ? request.inspect(manifest) : described;
       }},
      {"S4 sync data beside staging the manifest",
       [&] {
         Status synced, written;
         auto checked = encode_checked(manifest);
         if (!checked) return checked.status();
         text = *std::move(checked);
         saved.bytes = manifest.payload_bytes() + text.size();
         steps_.together([&] { synced = store_.sync_folder("data"); },
                         [&] {
                           auto stage = store_.stage(entry_name(manifest.uid, EntryKind::save), text);
                           written = stage.status();
                           if (stage) staged = std::move(*stage);
                         });
         return synced.ok() ? written : synced;
       }},
      {"S5 publish the manifest",
       [&] {
         if (!staged) return Status(StatusCode::invalid, "there is no manifest to publish");
         published = true;  // from here on the manifest may exist even if the call fails
         return publish_staged(store_, std::move(staged), entry_name(manifest.uid, EntryKind::save), text);
       }},
      {"S6 sync the journal", [&] { return store_.sync_folder("journal"); }},
      {"S7 list", [&] { return check_not_superseded(); }},
      {"S8 acknowledge",
       [&] {
         acknowledged = true;
         return Status();
       }},
  });
  if (!acknowledged || !status.ok()) {
    if (status.code() == StatusCode::superseded) return status;
    if (!published) {
      if (has_payload) (void)store_.remove(payload);  // no manifest refers to it; else it would become an orphan
      return status;
    }
    // After the next loss of power it may exist or not, so it is not acknowledged, not removed and not counted.
    doubtful_.insert(saved.uid);
    return Status(StatusCode::unknown,
                  "version " + saved.uid.short_text() +
                      " is written but not proven durable, so it does not count as saved: " + status.message());
  }
  newest_ = saved.uid;
  saved_ = true;
  saved.durability = manifest.durability;
  saved.seconds = seconds_() - begin;
  saved.non_finite = manifest.non_finite.value_or(0);
  constexpr std::size_t kNamed = 3;
  for (const TensorEntry& tensor : manifest.tensors) {
    if (tensor.non_finite > 0 && saved.non_finite_tensors.size() < kNamed) {
      saved.non_finite_tensors.push_back(tensor.name);
    }
  }
  non_finite_[saved.uid] = saved.non_finite;
  previous_cost_ = {{"seconds", saved.seconds}, {"bytes", saved.bytes}};
  return saved;
}

Status RunWriter::describe(SaveRequest& request, std::vector<PayloadTable> tables, Manifest& manifest) {
  manifest.epoch = open_.epoch;
  manifest.parent = newest_;
  manifest.run = run_;
  manifest.time = wall_time_();
  manifest.reason = request.reason;
  manifest.position = request.position;
  manifest.world_size = static_cast<int>(tables.size());
  manifest.durability = store_.capabilities().durable_put ? "fsynced" : "process-safe";
  manifest.cost = previous_cost_;
  manifest.tied = std::move(request.tied);
  manifest.non_finite = 0;
  for (PayloadTable& table : tables) {
    const std::size_t file = manifest.files.size();
    manifest.files.push_back(std::move(table.file));
    manifest.tensors.reserve(manifest.tensors.size() + table.tensors.size());
    for (TensorEntry& tensor : table.tensors) {
      for (TensorPart& part : tensor.parts) part.file = file;
      *manifest.non_finite += tensor.non_finite;
      manifest.tensors.push_back(std::move(tensor));
    }
  }
  const auto by_name = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
  if (tables.size() > 1) std::sort(manifest.tensors.begin(), manifest.tensors.end(), by_name);
  return {};
}

Result<std::vector<Uid>> RunWriter::prune(const Retention& retention) {
  // P1: plan over the current journal.
  if (Status status = check_not_superseded(); !status.ok()) return status;
  std::set<Uid> pinned;
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
  std::set<std::string> files;
  for (const Uid& uid : dropped) {
    auto bytes = store_.get(entry_name(uid, EntryKind::save));
    if (bytes.code() == StatusCode::not_found) continue;
    const auto head = bytes ? decode_manifest_head(*bytes) : Result<ManifestHead>(bytes.status());
    if (!head) continue;  // its payload stays for remove_orphans()
    for (const FileEntry& file : head->manifest.files) files.insert(file.name);
  }

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
      {"P4 remove the manifests",
       [&] {
         for (const Uid& uid : dropped) {
           if (Status status = store_.remove(entry_name(uid, EntryKind::save)); !status.ok()) return status;
         }
         return store_.sync_folder("journal");
       }},
      {"P5 remove the payload",
       [&] {
         std::vector<VersionRef> left = history_.versions();
         std::erase_if(left, [&](const VersionRef& version) { return dropped.contains(version.uid); });
         const auto live = live_files(store_, left);
         if (!live) return Status();  // a manifest that cannot be read may refer to any of them
         for (const std::string& file : files) {
           if (live->contains(file)) continue;
           if (Status status = store_.remove(file); !status.ok()) return status;
         }
         return Status();
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

Status RunWriter::note(NoteKind kind, const std::vector<Uid>& about, const std::string& reason,
                       nlohmann::json details) {
  if (ended_) return *ended_;
  Note note;
  note.kind = kind;
  note.about = about;
  note.reason = reason;
  note.details = std::move(details);
  Status status = publish_note(std::move(note), /*durable=*/true);
  if (status.ok() && kind == NoteKind::close) {
    ended_ = Status(StatusCode::invalid, "this session of run " + run_ + " was closed");
    lock_.reset();
  }
  return status;
}

Note RunWriter::prepare_death_note() {
  Note note;
  note.kind = NoteKind::death;
  if (open_.base) note.about = {*open_.base};
  sign(note);
  return note;
}

void RunWriter::sign(Note& note) {
  note.uid = next_uid();
  note.epoch = open_.epoch;
  note.program = program_;
  note.time = wall_time_();
}

Status RunWriter::publish_note(Note note, bool durable) {
  sign(note);
  const auto text = encode_checked(note);
  if (!text) return text.status();
  return publish_entry(store_, entry_name(note.uid, EntryKind::note), *text, durable);
}

}  // namespace holdfast::storage
