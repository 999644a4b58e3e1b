#include "workload.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "holdfast/storage/stores/file/file_store.h"

namespace holdfast::storage::crash {
namespace {

std::byte byte_at(std::uint64_t step, std::uint64_t tensor, std::uint64_t offset) {
  std::uint64_t mixed = (step * 0x9E3779B97F4A7C15U) ^ (tensor << 56) ^ offset;
  mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9U;
  return static_cast<std::byte>(mixed >> 56);
}

TensorSource tensor_at(std::uint64_t step, std::uint64_t index, std::int64_t elements) {
  TensorSource source;
  source.name = "layer." + std::to_string(index) + ".weight";
  source.dtype = Dtype::u8;
  source.shape = {elements};
  source.copy = [step, index](std::uint64_t offset, std::span<std::byte> into) {
    for (std::size_t i = 0; i < into.size(); ++i) into[i] = byte_at(step, index, offset + i);
  };
  return source;
}

bool contains(const std::vector<Acknowledged::Version>& versions, const Uid& uid) {
  return std::any_of(versions.begin(), versions.end(), [&](const auto& version) { return version.uid == uid; });
}

/// Checks rule 5 for the version that a start chose.
std::string wrong_choice(const History& history, const Acknowledged& acknowledged, const std::optional<Uid>& chosen) {
  if (acknowledged.versions.empty()) return {};
  const Uid& newest = acknowledged.versions.back().uid;
  if (!chosen) return "starts from scratch although version " + newest.text() + " was acknowledged";
  if (*chosen == newest) return {};
  if (contains(acknowledged.versions, *chosen)) {
    return "continues from " + chosen->text() + " although version " + newest.text() + " was acknowledged later";
  }
  // A session that resumed from a later complete version may drop the newest acknowledged one before its first save.
  if (history.is_dropped(newest) && chosen->seq > newest.seq) return {};
  const std::vector<VersionRef>& versions = history.versions();  // oldest first
  for (const VersionRef& version : versions) {
    if (version.uid == *chosen)
      return "continues from " + chosen->text() + ", older than the acknowledged " + newest.text();
    if (version.uid == newest) return {};
  }
  return "the newest acknowledged version " + newest.text() + " is not listed";
}

}  // namespace

SaveRequest state_at(std::uint64_t step, std::size_t bytes) {
  SaveRequest request;
  request.reason = "test";
  request.position.step = step;
  request.values["step"] = step;
  request.tensors.push_back(tensor_at(step, 0, bytes == 0 ? 48 : static_cast<std::int64_t>(bytes)));
  request.tensors.push_back(tensor_at(step, 1, 16));
  return request;
}

Status load_and_compare(const VersionReader& version) {
  const Manifest& manifest = version.manifest();
  std::vector<std::vector<std::byte>> buffers;
  std::vector<TensorTarget> targets;
  for (const TensorEntry& tensor : manifest.tensors) {
    buffers.emplace_back(static_cast<std::size_t>(tensor.bytes()));
    targets.push_back({tensor.name, buffers.back()});
  }
  ReadOptions options;
  options.threads = 1;
  if (Status read = version.read(targets, options); !read.ok()) return read;
  const std::uint64_t step = manifest.position.step;
  if (targets.size() != 2 || manifest.values.value("step", std::uint64_t{0}) != step) {
    return Status(StatusCode::misfit, "version " + manifest.uid.text() + " is not what was saved");
  }
  for (std::size_t tensor = 0; tensor < targets.size(); ++tensor) {
    const TensorSource source = tensor_at(step, tensor, 0);
    std::vector<std::byte> expected(buffers[tensor].size());
    source.copy(0, expected);
    if (targets[tensor].name != source.name || expected != buffers[tensor]) {
      return Status(StatusCode::misfit, "version " + manifest.uid.text() + " has other bytes than were saved");
    }
  }
  return {};
}

std::string session_id(std::uint64_t number) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(0xFFFFFFFFU - number * 0x01000193U));
  return text;
}

OpenRequest request_to_open(std::uint64_t session) {
  OpenRequest request;
  request.run = "alpha";
  request.session = session_id(session);
  request.host = "host";
  request.pid = static_cast<std::int64_t>(session);
  request.platform = "test";
  request.program = "test";
  request.take_over = true;
  // A constant time, so that the same operations write the same bytes. Else "distinct images" would count clock ticks.
  request.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  request.seconds = [] { return 0.0; };
  request.pause = [](double) {};
  request.load = load_and_compare;
  request.say = [](const std::string&) {};
  return request;
}

std::string to_string(Operation operation) {
  switch (operation) {
    case Operation::save:
      return "save";
    case Operation::prune:
      return "prune";
    case Operation::takeover:
      return "takeover";
    case Operation::drop:
      return "drop";
  }
  return "";
}

Status Workload::open() {
  if (session_.writer) stale_.push_back(std::move(session_));
  session_.store = open_file_store(folder_, {}, machine_.files, machine_.steps);
  OpenRequest request = request_to_open(++sessions_);
  request.steps = &machine_.steps;
  auto writer = RunWriter::open(*session_.store, request);
  if (!writer) return writer.status();
  session_.writer = std::move(*writer);
  acknowledged_.opens.push_back(session_.writer->uid());
  return {};
}

Status Workload::save() {
  ++step_;
  const auto saved = session_.writer->save(state_at(step_));
  if (!saved) return saved.status();
  acknowledged_.versions.push_back({saved->uid, step_});
  return {};
}

Status Workload::prune() {
  Retention retention;
  retention.keep_last = 1;
  const auto pruned = session_.writer->prune(retention);
  return pruned ? Status() : pruned.status();
}

Status Workload::drop() {
  for (const Acknowledged::Version& version : acknowledged_.versions) {
    const bool newest = version.uid == acknowledged_.versions.back().uid;
    const bool base = session_.writer->base() == version.uid;
    const std::vector<VersionRef>& seen = session_.writer->history().versions();
    const bool there = std::any_of(seen.begin(), seen.end(), [&](const auto& ref) { return ref.uid == version.uid; });
    if (there && !newest && !base && !session_.writer->history().is_dropped(version.uid)) {
      return session_.writer->drop({version.uid}, "test");
    }
  }
  return {};
}

Status Workload::close() {
  Status noted = session_.writer->note(NoteKind::close, {}, "test", nlohmann::json::object());
  if (noted.ok()) acknowledged_.closes.push_back(session_.writer->uid().session);
  session_.writer.reset();
  return noted;
}

Status Workload::remove_orphans() {
  const auto removed = session_.writer->remove_orphans();
  return removed ? Status() : removed.status();
}

Status Workload::run(Operation operation) {
  switch (operation) {
    case Operation::save:
      return save();
    case Operation::prune:
      return prune();
    case Operation::takeover:
      return open();
    case Operation::drop:
      return drop();
  }
  return {};
}

void Workload::resume(const Acknowledged& acknowledged, std::uint64_t sessions, std::uint64_t step) {
  acknowledged_ = acknowledged;
  sessions_ = sessions;
  step_ = step;
}

std::string broken_promise(FileOperations& files, const Path& folder, const Acknowledged& acknowledged,
                           bool publish_may_tear) {
  ChooseOptions options;
  options.program = "test";
  const std::unique_ptr<Store> store = open_file_store(folder, {}, files);
  History history;
  if (Status read = history.refresh(*store); !read.ok()) return "the journal cannot be read: " + read.message();

  for (const Uid& uid : acknowledged.opens) {
    const auto& opens = history.opens();
    if (std::none_of(opens.begin(), opens.end(), [&](const OpenEntry& open) { return open.uid == uid; })) {
      return "the acknowledged open entry " + uid.text() + " is gone";
    }
  }
  for (const VersionRef& version : history.versions()) {
    const auto reader = VersionReader::open(*store, version.uid);
    if (reader.code() == StatusCode::corrupt && publish_may_tear && !contains(acknowledged.versions, version.uid)) {
      options.failed.emplace(version.uid, reader.status());
      continue;
    }
    if (!reader) return "version " + version.uid.text() + " is in the journal but: " + reader.status().message();
    const std::vector<Finding> findings = reader->verify();
    if (!findings.empty()) return "version " + version.uid.text() + " is in the journal but: " + findings[0].what;
  }
  for (const Acknowledged::Version& version : acknowledged.versions) {
    const auto& seen = history.versions();
    const bool there = std::any_of(seen.begin(), seen.end(), [&](const auto& ref) { return ref.uid == version.uid; });
    if (!there && !history.is_dropped(version.uid)) {
      return "the acknowledged version " + version.uid.text() + " is gone without a drop note";
    }
  }
  for (const std::string& session : acknowledged.closes) {
    const auto& notes = history.notes();
    if (std::none_of(notes.begin(), notes.end(),
                     [&](const Note& note) { return note.kind == NoteKind::close && note.uid.session == session; })) {
      return "the close note of session " + session + " is gone";
    }
  }
  // If nothing was ever acknowledged and all versions are torn, the next start refuses and names the remedy.
  const bool only_torn = !history.versions().empty() && options.failed.size() == history.versions().size();
  if (only_torn && acknowledged.versions.empty()) return {};
  const Result<Choice> choice = choose_base(history, options);
  if (!choice) return "no version can be chosen: " + choice.status().message();
  return wrong_choice(history, acknowledged, choice->version ? std::optional<Uid>(choice->version->uid) : std::nullopt);
}

std::string broken_restart(Machine machine, const Path& folder, const Acknowledged& acknowledged, std::uint64_t session,
                           bool publish_may_tear) {
  const std::unique_ptr<Store> store = open_file_store(folder, {}, machine.files, machine.steps);
  std::optional<Uid> loaded;
  OpenRequest request = request_to_open(session);
  request.steps = &machine.steps;
  request.load = [&loaded](const VersionReader& version) {
    Status status = load_and_compare(version);
    if (status.ok()) loaded = version.manifest().uid;
    return status;
  };
  auto opened = RunWriter::open(*store, request);
  if (opened.code() == StatusCode::corrupt && publish_may_tear && acknowledged.versions.empty()) {
    request.fresh = true;  // the remedy that the message names
    opened = RunWriter::open(*store, request);
  }
  if (!opened) return "the next start does not open the run: " + opened.status().message();
  RunWriter& writer = **opened;
  if (loaded != writer.base()) return "the next start reports that it continues from another version than it loaded";
  if (std::string wrong = wrong_choice(writer.history(), acknowledged, loaded); !wrong.empty()) {
    return "the next start " + wrong;
  }
  if (const auto removed = writer.remove_orphans(); !removed) {
    return "the next start cannot remove orphans: " + removed.status().message();
  }
  const auto saved = writer.save(state_at(1'000'000 + session));
  if (!saved) return "the next save fails: " + saved.status().message();
  for (const Acknowledged::Version& version : acknowledged.versions) {
    if (saved->uid.seq <= version.uid.seq) return "the next save reuses the number of " + version.uid.text();
  }
  Acknowledged now = acknowledged;
  now.opens.push_back(writer.uid());
  now.versions.push_back({saved->uid, 1'000'000 + session});
  std::string broken = broken_promise(machine.files, folder, now, publish_may_tear);
  return broken.empty() ? broken : "after the next save " + broken;
}

}  // namespace holdfast::storage::crash
