// The versions of one run, as text and as JSON.
#include <fmt/format.h>

#include <map>

#include "holdfast/storage/tiers/mirror_hint.h"
#include "inspect/version_rows.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"
#include "verbs/ls.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::NoteKind;
using storage::Result;
using storage::Uid;

namespace {

struct VersionList {
  std::vector<VersionRow> rows;
  Result<storage::Choice> choice;  // of the next start
  std::optional<Uid> next;         // the version that it resumes from
  std::vector<Uid> gone;           // removed earlier
  std::vector<storage::MirrorHint> mirrors;
  std::uint64_t bytes = 0;  // on disk
};

VersionList list_of(const RunFolder& run) {
  std::vector<VersionRow> rows = version_rows(run);
  auto choice = choose(run, known_failures(rows));
  const std::optional<Uid> next = choice && choice->version ? std::optional(choice->version->uid) : std::nullopt;
  if (next) mark_left_behind(run, *next, rows);
  std::vector<Uid> gone = dropped_versions(run, rows);
  return {std::move(rows),          std::move(choice), next, std::move(gone), read_mirror_hints(*run.store),
          bytes_on_disk(*run.store)};
}

ordered_json uid_or_null(const std::optional<Uid>& uid) { return uid ? ordered_json(uid->text()) : ordered_json(); }

/// One word for a version's condition; "ok" does not cover digests.
std::string state_of(const VersionRow& row) {
  if (row.dropping) return "dropping";
  if (!row.status.ok()) return std::string(to_string(row.status.code()));
  return row.verified && !row.verified->ok ? "corrupt" : "ok";
}

ordered_json to_json(const VersionRow& row, bool is_next) {
  ordered_json json = {{"uid", row.uid.text()}, {"number", row.uid.seq}, {"session", row.uid.session}};
  if (row.head) {
    json.update({{"step", row.head->position.step},
                 {"epoch", row.head->position.epoch},
                 {"samples", row.head->position.samples},
                 {"time", row.head->time},
                 {"age_seconds", or_null(age_of(row.head->time))},
                 {"reason", row.head->reason},
                 {"bytes", row.bytes},
                 {"tensors", row.tensors},
                 {"durability", row.head->durability},
                 {"parent", uid_or_null(row.head->parent)},
                 {"non_finite", or_null(row.head->non_finite)},
                 {"metrics", ordered_json(row.head->metrics)}});
  } else {
    for (const char* key : {"step", "epoch", "samples", "time", "age_seconds", "reason", "bytes", "tensors",
                            "durability", "parent", "non_finite", "metrics"}) {
      json[key] = nullptr;
    }
  }
  json["verified"] =
      row.verified ? ordered_json{{"ok", row.verified->ok}, {"time", row.verified->time}} : ordered_json();
  json["state"] = state_of(row);
  json["problem"] = row.status.ok() ? ordered_json() : ordered_json(row.status.message());
  json["next"] = is_next;
  json["left_behind"] = row.left_behind;
  json["notes"] = row.notes;
  return json;
}

ordered_json sessions_json(const RunFolder& run) {
  ordered_json sessions = ordered_json::array();
  std::map<std::string, const storage::Note*> ends;
  for (const storage::Note& note : run.history.notes()) {
    if (note.kind == NoteKind::close || note.kind == NoteKind::death) ends[note.uid.session] = &note;
  }
  for (const storage::OpenEntry& open : run.history.opens()) {
    const auto end = ends.find(open.uid.session);
    sessions.push_back({{"session", open.uid.session},
                        {"order", open.epoch},
                        {"time", open.time},
                        {"host", open.host},
                        {"pid", open.pid},
                        {"platform", open.platform},
                        {"base", uid_or_null(open.base)},
                        {"rewind", open.rewind},
                        {"ended", end == ends.end() ? ordered_json() : ordered_json(end->second->reason)}});
  }
  return sessions;
}

ordered_json to_json(const RunFolder& run, const VersionList& list) {
  ordered_json json = {{"run", run.name}, {"path", run.path.string()}, {"bytes_on_disk", list.bytes}};
  json["next_start"] = {{"version", uid_or_null(list.next)},
                        {"ok", list.choice.ok()},
                        {"reason", list.choice ? list.choice->reason : list.choice.status().message()}};
  json["versions"] = ordered_json::array();
  for (const VersionRow& row : list.rows) json["versions"].push_back(to_json(row, list.next == row.uid));
  json["dropped"] = ordered_json::array();
  for (const Uid& uid : list.gone) json["dropped"].push_back(uid.text());
  json["mirrors"] = ordered_json::array();
  for (const storage::MirrorHint& mirror : list.mirrors) {
    ordered_json versions = ordered_json::object();
    for (const auto& [uid, durability] : mirror.versions) versions[uid.text()] = durability;
    json["mirrors"].push_back({{"place", mirror.place}, {"versions", std::move(versions)}});
  }
  json["sessions"] = sessions_json(run);
  json["warnings"] = run.history.warnings();
  return json;
}

std::string remark_of(const VersionRow& row) {
  std::vector<std::string> remarks;
  if (row.dropping) remarks.push_back(styled(Style::dim, "being removed"));
  if (!row.status.ok()) {
    remarks.push_back(
        styled(Style::bad, fmt::format("{}: {}", to_string(row.status.code()), printable(row.status.message()))));
  }
  if (row.head && row.head->non_finite.value_or(0) > 0) {
    remarks.push_back(styled(Style::bad, plural(*row.head->non_finite, "number") + " NaN or infinite"));
  }
  if (row.left_behind) remarks.push_back(styled(Style::dim, "left behind by a rewind or another session"));
  for (const std::string& note : row.notes) remarks.push_back(styled(Style::dim, printable(note)));
  return fmt::format("{}", fmt::join(remarks, "; "));
}

std::string verified_text(const VersionRow& row) {
  if (!row.head) return "-";
  if (!row.verified) return "no";
  return row.verified->ok ? styled(Style::good, "yes") : styled(Style::bad, "damaged");
}

std::string table_text(const RunFolder& run, const VersionList& list) {
  Table table;
  table.column("", Table::Align::left);
  for (const char* heading : {"version", "step", "epoch", "age", "size", "tensors"}) {
    table.column(heading, Table::Align::right);
  }
  for (const char* heading : {"durability", "verified", ""}) table.column(heading, Table::Align::left);
  for (const VersionRow& row : list.rows) {
    const bool is_next = list.next == row.uid;
    const std::string label = label_of(run, row.uid);
    const std::string mark = is_next ? styled(Style::marked, ">") : " ";
    if (!row.head) {
      table.row({mark, label, "-", "-", "-", "-", "-", "-", "-", remark_of(row)});
      continue;
    }
    const storage::Manifest& head = *row.head;
    table.row({mark, is_next ? styled(Style::marked, label) : label, format_count(head.position.step),
               format_count(head.position.epoch), age_text(head.time), format_bytes(row.bytes),
               format_count(row.tensors), printable(head.durability), verified_text(row), remark_of(row)});
  }
  return table.text();
}

/// "mirror /drive/runs/mnist: 41, 42 (process-safe)", as it was when a session last copied to it.
std::string mirror_text(const RunFolder& run, const storage::MirrorHint& mirror) {
  std::map<std::string, std::vector<std::string>> labels;  // by what is guaranteed
  for (const auto& [uid, durability] : mirror.versions) labels[durability].push_back(label_of(run, uid));
  std::vector<std::string> groups;
  for (const auto& [durability, of_it] : labels)
    groups.push_back(fmt::format("{} ({})", fmt::join(of_it, ", "), printable(durability)));
  return fmt::format("mirror {}: {}\n", printable(mirror.place),
                     groups.empty() ? "no versions" : fmt::format("{}", fmt::join(groups, "; ")));
}

void print_list(const RunFolder& run, const VersionList& list) {
  print(fmt::format("{} in {}\n", styled(Style::bold, "run " + printable(run.name)), printable(run.path.string())));
  if (!list.rows.empty()) print(table_text(run, list));
  std::string summary = list.rows.empty() ? "no versions" : plural(list.rows.size(), "version");
  summary += fmt::format(", {} on disk, {}", format_bytes(list.bytes), plural(run.history.opens().size(), "session"));
  if (!list.gone.empty())
    summary +=
        fmt::format("; {} removed earlier, up to number {}", format_count(list.gone.size()), list.gone.back().seq);
  print(summary + "\n");
  for (const storage::MirrorHint& mirror : list.mirrors) print(mirror_text(run, mirror));
  if (!list.choice) {
    print(styled(Style::bad, "the next start stops: " + printable(list.choice.status().message())) + "\n");
  } else if (list.next) {
    print(fmt::format("> the next start resumes from {}\n", label_of(run, *list.next)));
  } else {
    print("the next start begins from scratch\n");
  }
  for (const std::string& warning : run.history.warnings())
    print(styled(Style::dim, "note: " + printable(warning)) + "\n");
}

}  // namespace

Result<int> list_versions(const storage::Path& path, bool json) {
  const auto run = open_run(path);
  if (!run) return run.status();
  const VersionList list = list_of(**run);
  if (json) {
    print_json(to_json(**run, list));
  } else {
    print_list(**run, list);
  }
  return kOk;
}

}  // namespace holdfast::tools
