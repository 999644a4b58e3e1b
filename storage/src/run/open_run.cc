#include <algorithm>
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
  if (const auto& left = writer->open_.left_behind) {
    writer->say_("version " + left->short_text() + " in " + store.location() + " is not a part of what version " +
                 writer->open_.base->short_text() +
                 " continues: the run was continued in two places apart. It is kept; to continue from it instead: "
                 "--holdfast.from " +
                 left->short_text());
  }
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

Status RunWriter::choose(ChooseOptions& options) {
  auto choice = choose_among_all(options);
  if (!choice) return choice.status();
  choice_ = std::move(*choice);
  open_.base = choice_.version ? std::optional(choice_.version->uid) : std::nullopt;
  open_.rewind = choice_.rewind;
  open_.left_behind = left_behind(options);
  return {};
}

// A place that cannot be read now may hold the newest version: without it, a run never starts from scratch by itself.
Result<Choice> RunWriter::choose_among_all(ChooseOptions& options) {
  if (Status status = history_.refresh(store_); !status.ok()) return status;
  known_ = history_;
  std::string unread;
  for (Searched& other : others_) {
    const Store& store = *other.place.store;
    const Status status = other.place.reached.ok() ? other.history.refresh(store) : other.place.reached;
    other.was_read = other.was_read || status.ok();
    if (other.was_read) {  // what was listed once stays known if it cannot be listed again
      known_.add(other.history);
      continue;
    }
    unread += (unread.empty() ? "" : "; ") + status.message();
    if (std::exchange(other.is_reported, true)) continue;
    say_("no versions are looked for in " + store.location() + ": " + status.message());
  }
  if (known_.highest_seq() > kMaxSeq - 1'000'000'000) {
    return Status(StatusCode::invalid,
                  "a name in journal/ or data/ of " + store_.location() + " has the number " +
                      std::to_string(known_.highest_seq()) +
                      ", which is so large that too few numbers are left to continue; nothing was changed. Move that "
                      "file away");
  }
  last_seq_ = std::max(last_seq_, known_.highest_seq());
  // A copy of a version that did not load may have arrived at another place since.
  std::erase_if(options.failed, [this](const auto& one) {
    const auto places = places_of(one.first);
    const auto& tried = tried_[one.first];
    return std::any_of(places.begin(), places.end(), [&](const Store* place) { return !tried.contains(place); });
  });
  auto choice = choose_base(known_, options);
  if (unread.empty() || options.fresh || (choice.ok() && choice->version)) return choice;
  return Status(
      choice.ok() ? StatusCode::unreadable : choice.code(),
      (choice.ok() ? "no version of run " + run_ + " was found in " + store_.location() : choice.status().message()) +
          ", but not every place can be read: " + unread +
          ". If no version is there, start from scratch with --holdfast.fresh");
}

Status RunWriter::note_attempt() {
  if (!open_.base) return {};
  Note attempt;
  attempt.kind = NoteKind::attempt;
  attempt.about = {*open_.base};
  attempt.reason = choice_.reason;
  return publish_note(std::move(attempt), /*durable=*/false);
}

// The places of a version, best first. A version that no place lists has just vanished, which reading it at home finds.
std::vector<const Store*> RunWriter::places_of(const Uid& uid) const {
  std::vector<const Store*> places;
  if (history_.has_version(uid) && !history_.is_dropped(uid)) places.push_back(&store_);
  for (const Searched& other : others_) {
    if (other.history.has_version(uid) && !other.history.is_dropped(uid)) places.push_back(other.place.store);
  }
  if (places.empty()) places.push_back(&store_);
  return places;
}

Status RunWriter::load_from(const Store& place, const OpenRequest& request) {
  Status status;
  for (const double seconds : {0.0, 0.2, 1.0}) {  // an access that fails may succeed a moment later
    if (seconds > 0) pause_(seconds);
    auto version = VersionReader::open(place, *open_.base);
    status = version ? (request.load ? request.load(*version) : Status()) : version.status();
    if (is_permanent(status.code())) break;
  }
  if (status.ok()) base_place_ = &place;
  return status;
}

Status RunWriter::load_base(const OpenRequest& request, ChooseOptions& options, bool& again) {
  if (!open_.base) return {};
  const Uid base = *open_.base;
  Status status;
  const auto places = places_of(base);
  for (std::size_t i = 0; i < places.size(); ++i) {
    Status here = load_from(*places[i], request);
    tried_[base].insert(places[i]);
    const bool is_damaged = here.code() == StatusCode::corrupt || here.code() == StatusCode::incomplete ||
                            here.code() == StatusCode::not_found;
    if (is_permanent(here.code()) && !is_damaged) return here;  // loaded, or no other copy would fit either
    if (places.size() > 1) here = {here.code(), here.message() + " (in " + places[i]->location() + ")"};
    if (i + 1 < places.size()) {
      say_("version " + base.short_text() + " is read from " + places[i + 1]->location() + ": " + here.message());
    }
    // An older version would not do as long as a whole copy of this one may exist.
    if (status.ok() || !is_permanent(here.code())) status = here;
  }
  if (!is_permanent(status.code())) {
    return {status.code(), "version " + base.short_text() + " cannot be read now: " + status.message() +
                               "; nothing was changed. Try again, or choose an older version with "
                               "--holdfast.from"};
  }
  const bool vanished = status.code() == StatusCode::not_found;  // dropped by a session that is still running
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
  open_.epoch = known_.highest_epoch() + 1;
  open_.time = wall_time_();
  const auto text = encode_checked(open_);
  if (!text) return text.status();
  const std::string name = entry_name(open_.uid, EntryKind::open);
  if (Status status = publish_entry(store_, name, *text); !status.ok()) return status;
  return announce(name, *text);
}

// A session that copies to the same mirror from another machine finds our entry in its next listing there, or we find
// what it has copied in ours (O5). A mirror that cannot be written now gets the entry later, from the copier.
Status RunWriter::announce(const std::string& name, const std::string& text) {
  for (const Searched& other : others_) {
    if (other.place.mirror == nullptr || !other.was_read) continue;
    const Status status = publish_entry(*other.place.mirror, name, text);
    if (status.code() == StatusCode::already_exists) {  // nobody else has our id
      return {StatusCode::invalid,
              "mirror " + other.place.store->location() +
                  " is the folder of the run itself, or of another mirror, by another name: name a "
                  "different folder"};
    }
    if (!status.ok())
      say_("this session is not announced in " + other.place.store->location() + ": " + status.message());
  }
  return {};
}

bool RunWriter::was_read(const Store& place) const {
  return std::any_of(others_.begin(), others_.end(),
                     [&](const Searched& other) { return other.place.store == &place && other.was_read; });
}

// While a mirror could not be read, this home and another machine may have continued the run apart. The other line is
// the later one, but the work at home is not dropped: our open entry names its newest version.
std::optional<Uid> RunWriter::left_behind(const ChooseOptions& options) const {
  if (!choice_.version || choice_.rewind || others_.empty()) return std::nullopt;
  const auto of_home = latest_line(history_);
  const auto line = latest_line(known_);
  if (of_home.empty() || options.failed.contains(of_home.front().uid)) return std::nullopt;
  const VersionRef& newest = of_home.front();
  const bool is_continued = std::find(line.begin(), line.end(), newest) != line.end();
  return is_continued ? std::nullopt : std::optional(newest.uid);
}

Status RunWriter::confirm_base(ChooseOptions& options, bool& again) {
  auto choice = choose_among_all(options);
  if (Status status = check_not_superseded_in(known_); !status.ok()) return status;
  if (!choice) return choice.status();
  const auto uid = choice->version ? std::optional(choice->version->uid) : std::nullopt;
  // A session that ran here while we opened may have saved on the line that ours leaves behind.
  if (uid == open_.base && left_behind(options) == open_.left_behind) return {};
  again = true;
  say_("the latest version is now " + (uid ? uid->short_text() : std::string("none")) +
       ", because another session was still saving; loading again");
  return {};
}

}  // namespace holdfast::storage
