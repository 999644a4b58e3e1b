#include <utility>

#include "holdfast/storage/run/run_writer.h"
#include "holdfast/storage/text/text.h"
#include "run/publish_entry.h"

namespace holdfast::storage {
namespace {

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
                                       "--holdfast.dir. Existing versions can still be read"};
}

}  // namespace

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
  if (Status status = writer->take_lock(request); !status.ok()) return status;

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

Status RunWriter::take_lock(const OpenRequest& request) {
  if (!store_.capabilities().host_lock) return {};  // remove_orphans() would rely on it
  auto lock = store_.lock("pid " + std::to_string(request.pid) + " on host " + request.host + " since " + wall_time_());
  if (lock) {
    lock_ = std::move(*lock);
    if (const std::string before = lock_->left_by(); !before.empty()) {
      say_("the run was still locked for " + before +
           ", which is gone: a process that it started keeps the lock; this session takes the run over");
    }
  } else if (lock.code() == StatusCode::busy && !request.take_over) {
    return {StatusCode::busy, "run " + request.run + " in " + store_.location() + " is already running as " +
                                  lock.status().message() +
                                  "; wait for it, end it, or take the run over with --holdfast.take-over"};
  } else if (lock.code() != StatusCode::busy && lock.code() != StatusCode::unsupported) {
    return lock.status();
  }
  return {};
}

Status RunWriter::choose(const ChooseOptions& options) {
  if (Status status = history_.refresh(store_); !status.ok()) return status;
  if (history_.highest_seq() > kMaxSeq - 1'000'000'000) {
    return {StatusCode::invalid,
            "a name in journal/ or data/ of " + store_.location() + " has the number " +
                std::to_string(history_.highest_seq()) +
                ", which is so large that too few numbers are left to continue; nothing was changed. Move that file "
                "away"};
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
    if (is_permanent(status.code())) break;
  }
  if (!is_permanent(status.code())) {
    return {status.code(), "version " + base.short_text() + " cannot be read now: " + status.message() +
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
  say_("the latest version is now " + (uid ? uid->short_text() : std::string("none")) +
       ", because another session was still saving; loading again");
  return {};
}

}  // namespace holdfast::storage
