#include "holdfast/storage/run/history.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "holdfast/storage/formats/manifest_head.h"
#include "holdfast/storage/text/text.h"

namespace holdfast::storage {
namespace {

bool is_same_or_newer(const VersionRef& a, const VersionRef& b) {
  return std::tie(a.order, a.uid.seq) >= std::tie(b.order, b.uid.seq);
}

std::string list_of(const std::vector<VersionRef>& versions, std::size_t at_most) {
  std::string text;
  const std::size_t first = versions.size() > at_most ? versions.size() - at_most : 0;
  if (first > 0) text = "…, ";
  for (std::size_t i = first; i < versions.size(); ++i) {
    text += versions[i].uid.short_text() + (i + 1 < versions.size() ? ", " : "");
  }
  return text;
}

/// Versions to try, best first, in the order that history.h defines.
std::vector<VersionRef> by_preference(const History& history) {
  std::set<SessionOrder, std::greater<>> sessions;
  std::map<std::string, const OpenEntry*> last_open;     // of each session
  std::map<std::string, std::vector<VersionRef>> saves;  // of each session, oldest first
  for (const OpenEntry& open : history.opens()) last_open[open.uid.session] = &open;
  for (const auto& [session, open] : last_open) sessions.insert({open->epoch, session});
  for (const VersionRef& version : history.versions()) {
    sessions.insert(version.order);
    saves[version.uid.session].push_back(version);
  }

  std::vector<VersionRef> preferred;
  std::set<std::string> followed;
  const auto follow = [&](std::string session, std::uint64_t up_to) {
    // A session's own versions, then those up to its base, and so on down the lineage. True if the lineage ends in a
    // deliberate start from scratch, so that no older version belongs to it.
    while (followed.insert(session).second) {
      const auto& own = saves[session];
      for (auto version = own.rbegin(); version != own.rend(); ++version) {
        if (version->uid.seq <= up_to && !history.is_dropped(version->uid)) preferred.push_back(*version);
      }
      const auto open = last_open.find(session);
      if (open == last_open.end()) return false;
      if (!open->second->base) return open->second->rewind;
      up_to = open->second->base->seq;
      session = open->second->base->session;
    }
    return false;
  };

  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  for (const SessionOrder& order : sessions) {
    if (followed.contains(order.session)) continue;
    const auto open = last_open.find(order.session);
    if (!saves[order.session].empty()) {
      if (follow(order.session, kAll)) break;
    } else if (open != last_open.end() && open->second->rewind && open->second->base &&
               !history.is_dropped(*open->second->base)) {  // if it is dropped, that start failed
      if (follow(open->second->base->session, open->second->base->seq)) break;
    }
    if (preferred.empty()) followed.clear();  // a rewind to a version that is now dropped hides no version
    // Once a lineage was followed, versions outside it were abandoned by a rewind or a takeover.
    if (!preferred.empty() && open != last_open.end()) break;
  }
  return preferred;
}

std::optional<std::string> condemnation(const History& history, const Uid& uid, const std::string& program) {
  int deaths = 0;
  std::string reasons;
  for (const Note& note : history.notes()) {
    if (note.kind != NoteKind::death || note.program != program || note.about.empty() || note.about.front() != uid) {
      continue;
    }
    ++deaths;
    reasons += (reasons.empty() ? "" : ", ") + excerpt(note.reason);
  }
  if (deaths < kPoisonDeaths) return std::nullopt;
  return "this program died " + std::to_string(deaths) + " times within " + std::to_string(kPoisonSteps) +
         " steps of loading it (" + reasons + ")";
}

/// Whether a session removed the payload before the manifest was published: such a version was never acknowledged.
bool is_orphan(const History& history, const Uid& uid) {
  return std::any_of(history.notes().begin(), history.notes().end(), [&](const Note& note) {
    const auto orphans = note.details.find("orphans");
    return note.kind == NoteKind::drop && orphans != note.details.end() && *orphans == true &&
           std::find(note.about.begin(), note.about.end(), uid) != note.about.end();
  });
}

/// For a run without versions: evidence in the journal or data/ that one was saved and then lost; empty if there is
/// none.
std::string trace_of_versions(const History& history) {
  for (const OpenEntry& open : history.opens()) {
    if (open.base && !history.is_dropped(*open.base)) return "the journal mentions version " + open.base->short_text();
  }
  for (const Note& note : history.notes()) {
    // Retention drops only older versions, so newer ones existed; `saves` counts acknowledged versions.
    if (note.kind == NoteKind::drop && !note.about.empty() && !is_orphan(history, note.about.front())) {
      return "the journal mentions version " + note.about.front().short_text() + " and newer ones";
    }
    const auto saves = note.details.find("saves");
    if (note.kind == NoteKind::close && saves != note.details.end() && saves->is_number() && *saves > 0) {
      return "the journal mentions versions that session " + note.uid.session + " saved";
    }
  }
  // A session writes its open entry first, and open entries are never removed.
  for (const std::string& session : history.payload_sessions()) {
    const auto is_its = [&](const OpenEntry& open) { return open.uid.session == session; };
    if (std::none_of(history.opens().begin(), history.opens().end(), is_its)) {
      return "data/ holds files of session " + session + ", which the journal does not contain";
    }
  }
  return "";
}

}  // namespace

void History::add(const History& other) {
  const auto has_open = [&](const Uid& uid) {
    return std::any_of(opens_.begin(), opens_.end(), [&](const OpenEntry& open) { return open.uid == uid; });
  };
  for (const OpenEntry& open : other.opens_) {
    if (!has_open(open.uid)) opens_.push_back(open);
  }
  for (const Note& note : other.notes_) {
    const auto is_it = [&](const Note& mine) { return mine.uid == note.uid && mine.kind == note.kind; };
    if (note.kind == NoteKind::drop || std::any_of(notes_.begin(), notes_.end(), is_it)) continue;
    notes_.push_back(note);
  }
  for (const VersionRef& version : other.versions_) {
    if (other.is_dropped(version.uid)) continue;
    kept_elsewhere_.insert(version.uid);
    if (!has_version(version.uid)) versions_.push_back(version);
  }
  highest_seq_ = std::max(highest_seq_, other.highest_seq_);
  sort();
}

bool History::has_version(const Uid& uid) const {
  return std::any_of(versions_.begin(), versions_.end(), [&](const VersionRef& version) { return version.uid == uid; });
}

void History::sort() {
  std::sort(opens_.begin(), opens_.end(), [](const OpenEntry& a, const OpenEntry& b) {
    return std::tie(a.epoch, a.uid.session) < std::tie(b.epoch, b.uid.session);
  });
  std::sort(notes_.begin(), notes_.end(), [](const Note& a, const Note& b) { return a.uid < b.uid; });
  std::sort(versions_.begin(), versions_.end(),
            [](const VersionRef& a, const VersionRef& b) { return !is_same_or_newer(a, b); });
}

Status History::refresh(const Store& store) {
  // Data first: a session creates its open entry before its payload, so the journal then shows the entry.
  if (highest_seq_ == 0) {  // numbers in data/ count too, but only those of sessions before this one
    auto data = store.list("data");
    if (!data) return data.status();
    for (const std::string& name : *data) {
      const auto payload = parse_payload_name(name);
      if (!payload) continue;
      highest_seq_ = std::max(highest_seq_, payload->uid.seq);
      payload_sessions_.insert(payload->uid.session);
    }
  }
  auto journal = store.list("journal");
  if (!journal) return journal.status();

  std::vector<Uid> present;
  for (const std::string& name : *journal) {
    const auto entry = parse_entry_name(name);
    if (entry) highest_seq_ = std::max(highest_seq_, entry->uid.seq);
    if (entry && entry->kind == EntryKind::save) {
      present.push_back(entry->uid);
      continue;
    }
    if (read_.contains(name)) continue;
    if (!entry) {
      read_.insert(name);
      warnings_.push_back(store.location() + "/" + excerpt(name) + " is not a journal entry; it is ignored");
      continue;
    }
    auto bytes = store.get(name, kMaxEntryBytes);
    if (bytes.code() == StatusCode::not_found) continue;
    // An open entry that cannot be read is an error, because it decides whether a later session took over.
    if (!bytes && bytes.code() != StatusCode::corrupt && entry->kind == EntryKind::open) return bytes.status();
    if (!bytes && bytes.code() != StatusCode::corrupt) continue;
    Status status = bytes.status();
    if (bytes && entry->kind == EntryKind::open) {
      auto open = decode_open(*bytes);
      if (open) opens_.push_back(std::move(*open));
      status = open.status();
    } else if (bytes) {
      auto note = decode_note(*bytes);
      if (note) notes_.push_back(std::move(*note));
      status = note.status();
    }
    // A torn entry is read again: where entries are written in place, its writer may not have finished.
    if (status.ok()) {
      read_.insert(name);
    } else if (torn_.insert(name).second) {
      warnings_.push_back(store.location() + "/" + name + " is ignored: " + status.message());
    }
  }
  std::map<std::string, std::uint64_t> epochs;
  for (const OpenEntry& open : opens_) epochs[open.uid.session] = open.epoch;
  versions_.clear();
  for (const Uid& uid : present) {
    auto epoch = epochs.find(uid.session);
    if (epoch == epochs.end()) {  // its open entry is lost or has not arrived: the manifest has the epoch too
      auto bytes = store.get(entry_name(uid, EntryKind::save));
      const auto head = bytes ? decode_manifest_head(*bytes) : Result<ManifestHead>(bytes.status());
      epoch = epochs.emplace(uid.session, head ? head->manifest.epoch : 0).first;
    }
    versions_.push_back({uid, {epoch->second, uid.session}});
  }
  sort();
  return {};
}

std::uint64_t History::highest_epoch() const {
  const std::uint64_t opened = opens_.empty() ? 0 : opens_.back().epoch;
  return std::max(opened, versions_.empty() ? 0 : versions_.back().order.epoch);
}

bool History::is_dropped(const Uid& uid) const {
  if (kept_elsewhere_.contains(uid)) return false;
  return std::any_of(notes_.begin(), notes_.end(), [&](const Note& note) {
    return note.kind == NoteKind::drop && std::find(note.about.begin(), note.about.end(), uid) != note.about.end();
  });
}

const OpenEntry* History::superseded_by(const SessionOrder& mine) const {
  if (opens_.empty()) return nullptr;
  const OpenEntry& last = opens_.back();
  return SessionOrder{last.epoch, last.uid.session} > mine ? &last : nullptr;
}

namespace {

// "42", "42-7f3a" or a full uid.
struct VersionName {
  std::uint64_t seq;
  std::string session;  // its beginning

  bool names(const Uid& uid) const { return uid.seq == seq && uid.session.starts_with(session); }
};

std::optional<VersionName> parse_version_name(const std::string& text) {
  const std::size_t dash = text.find('-');
  const std::string number = text.substr(0, dash);
  const std::string session = dash == std::string::npos ? "" : text.substr(dash + 1);
  const bool well_formed = !number.empty() && number.size() <= 19 &&
                           number.find_first_not_of("0123456789") == std::string::npos && session.size() <= 8 &&
                           (dash == std::string::npos || !session.empty());
  if (!well_formed) return std::nullopt;
  return VersionName{std::stoull(number), session};
}

}  // namespace

Result<VersionRef> find_version(const History& history, const std::string& text) {
  const auto name = parse_version_name(text);
  if (!name) {
    return Status(
        StatusCode::invalid,
        in_quotes(text) +
            " is not a version; write its number, such as 42, or 42-7f3a if several versions have this number");
  }
  std::vector<VersionRef> matches;
  for (const VersionRef& version : history.versions()) {
    if (name->names(version.uid)) matches.push_back(version);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.empty()) {
    return Status(
        StatusCode::not_found,
        "there is no version " + text + "; " +
            (history.versions().empty() ? "this run has none" : "there are " + list_of(history.versions(), 10)));
  }
  return Status(StatusCode::invalid, "version " + text + " is ambiguous: it could be any of " + list_of(matches, 10) +
                                         "; add the letters after the number");
}

namespace {

constexpr std::string_view kAgain = "again:";

// Why the starting point in `options` was already used; empty if it was not. A command that a restarter repeats names
// the same starting point each time.
std::string used_up(const History& history, const ChooseOptions& options) {
  const auto last =
      std::find_if(history.opens().rbegin(), history.opens().rend(), [](const OpenEntry& open) { return open.rewind; });
  if (last == history.opens().rend()) return {};
  // If nothing was saved since, the starting point is followed again.
  if (history.versions().empty() || history.versions().back().order < SessionOrder{last->epoch, last->uid.session}) {
    return {};
  }
  if (options.fresh && !last->base && !options.job.empty() && last->job == options.job) {
    return "; this job began from scratch at " + excerpt(last->time) + ", so --holdfast.fresh has already taken effect";
  }
  const auto from = options.from ? parse_version_name(*options.from) : std::nullopt;
  if (from && last->base && from->names(*last->base)) {
    return "; the run went back to version " + last->base->short_text() + " at " + excerpt(last->time) +
           ", so --holdfast.from " + *options.from +
           " has already taken effect (--holdfast.from again:" + *options.from + " goes back once more)";
  }
  return {};
}

}  // namespace

std::vector<VersionRef> latest_line(const History& history) { return by_preference(history); }

namespace {

/// For each session that another one continues, the number of the newest version that is part of the other's line.
/// Sessions of which no whole version is left here continue nothing: their work is elsewhere.
std::map<std::string, std::uint64_t> continued(const History& history,
                                               const std::function<bool(const Uid&)>& is_whole) {
  std::map<std::string, std::optional<Uid>> bases;
  for (const OpenEntry& open : history.opens()) bases[open.uid.session] = open.base;
  std::map<std::string, std::uint64_t> newest;
  std::set<std::string> walked;
  for (const VersionRef& version : history.versions()) {
    if (walked.contains(version.uid.session) || !is_whole(version.uid)) continue;
    for (std::string session = version.uid.session; walked.insert(session).second;) {
      const auto base = bases[session];
      if (!base) break;
      auto& seq = newest[base->session];
      seq = std::max(seq, base->seq);
      session = base->session;
    }
  }
  return newest;
}

/// Whether a rewind left the line of which this is the end: it was the newest version before it.
bool is_rewound(const History& history, const VersionRef& end) {
  return std::any_of(history.opens().begin(), history.opens().end(), [&](const OpenEntry& open) {
    const SessionOrder order{open.epoch, open.uid.session};
    if (!open.rewind || order < end.order) return false;
    const auto after = std::find_if(history.versions().begin(), history.versions().end(),
                                    [&](const VersionRef& version) { return !(version.order < order); });
    return after != history.versions().begin() && *std::prev(after) == end;
  });
}

}  // namespace

std::set<Uid> ends_of_other_lines(const History& history, const std::function<bool(const Uid&)>& is_whole) {
  const auto newest_continued = continued(history, is_whole);
  std::map<std::string, const VersionRef*> ends;  // of whole versions, oldest first
  for (const VersionRef& version : history.versions()) {
    if (is_whole(version.uid)) ends[version.uid.session] = &version;
  }
  std::set<Uid> left;
  for (const auto& [session, end] : ends) {
    const auto by = newest_continued.find(session);
    const bool is_continued = by != newest_continued.end() && by->second >= end->uid.seq;
    const bool is_latest = !history.opens().empty() && session == history.opens().back().uid.session;
    if (!is_latest && !is_continued && !is_rewound(history, *end)) left.insert(end->uid);
  }
  return left;
}

Result<Choice> choose_base(const History& history, const ChooseOptions& given) {
  ChooseOptions options = given;
  const std::string used = used_up(history, options);
  if (!used.empty()) options.fresh = false, options.from.reset();
  if (options.from && options.from->starts_with(kAgain)) options.from = options.from->substr(kAgain.size());
  Choice choice;
  if (options.fresh) {
    choice.rewind = true;
    choice.reason = history.versions().empty() ? "starting from scratch"
                                               : "starting from scratch as requested (--holdfast.fresh); earlier "
                                                 "versions stay until newer ones replace them "
                                                 "(--holdfast.keep): " +
                                                     list_of(history.versions(), 5);
    return choice;
  }
  if (options.from) {
    auto version = find_version(history, *options.from);
    if (!version) return version.status();
    if (history.is_dropped(version->uid)) {
      return Status(StatusCode::invalid, "version " + version->uid.short_text() +
                                             " is being removed by retention; choose another one with --holdfast.from");
    }
    if (const auto failed = options.failed.find(version->uid); failed != options.failed.end()) return failed->second;
    choice.version = *version;
    choice.rewind = true;
    choice.reason = "resuming from version " + version->uid.short_text() + " as requested";
    return choice;
  }

  for (const VersionRef& version : by_preference(history)) {
    if (const auto failed = options.failed.find(version.uid); failed != options.failed.end()) {
      choice.passed_over.push_back({version.uid, failed->second.message()});
    } else if (auto condemned = condemnation(history, version.uid, options.program)) {
      choice.passed_over.push_back({version.uid, *condemned});
    } else {
      choice.version = version;
      break;
    }
  }
  if (choice.version) {
    choice.reason = "resuming from version " + choice.version->uid.short_text() + used;
    choice.starting_point_is_used = !used.empty();
    for (const PassedOver& passed : choice.passed_over) {
      choice.reason += "; passed over " + passed.uid.short_text() + ": " + passed.reason;
    }
    return choice;
  }

  constexpr const char* kRemedy =
      "; nothing was changed. Choose a version with --holdfast.from, or start from scratch with --holdfast.fresh";
  if (!std::all_of(history.versions().begin(), history.versions().end(),
                   [&](const VersionRef& version) { return is_orphan(history, version.uid); })) {
    std::string message = "there are versions (" + list_of(history.versions(), 5) + "), but none can be resumed from";
    for (const PassedOver& passed : choice.passed_over)
      message += "; " + passed.uid.short_text() + ": " + passed.reason;
    return Status(StatusCode::corrupt, message + kRemedy);
  }
  if (const std::string trace = trace_of_versions(history); !trace.empty()) {
    return Status(StatusCode::incomplete, trace +
                                              ", but the journal has no versions any more: was the run copied only in "
                                              "part, or is it still being synchronised?" +
                                              kRemedy);
  }
  choice.reason = history.opens().empty() ? "starting from scratch: a new run"
                                          : "starting from scratch: no earlier session had saved a version" + used;
  return choice;
}

}  // namespace holdfast::storage
