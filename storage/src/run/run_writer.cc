#include "holdfast/storage/run/run_writer.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "holdfast/storage/text/text.h"
#include "holdfast/storage/text/time.h"
#include "run/publish_entry.h"

namespace holdfast::storage {
namespace {

double system_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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
  for (const OtherPlace& other : request.others) others_.push_back({other});
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

Status RunWriter::check_not_superseded() {
  if (ended_) return *ended_;
  if (Status status = history_.refresh(store_); !status.ok()) return status;
  return check_not_superseded_in(history_);
}

Status RunWriter::check_not_superseded_in(const History& history) {
  const OpenEntry* by = history.superseded_by(order());
  if (!by) return {};
  ended_ = superseded(run_, *by);
  return *ended_;
}

Result<VersionReader> RunWriter::read(const Uid& uid) const {
  Result<VersionReader> version = Status(StatusCode::not_found, "");
  for (const Store* place : places_of(uid)) {
    version = VersionReader::open(*place, uid);
    if (version) break;
  }
  return version;
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
