// holdfast ls: the runs in a folder, or the versions of a run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <set>
#include <thread>

#include "inspect/checkpoint.h"
#include "inspect/run_folder.h"
#include "inspect/verified_hint.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::NoteKind;
using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::Uid;

namespace {

struct Options {
  std::string path;
  bool json = false;
};

/// What a listing keeps of a version. Manifests themselves are released because a journal may hold thousands.
struct Row {
  Uid uid;
  std::optional<storage::Manifest> head;  // without files, tensors and values; empty if it cannot be read
  std::uint64_t bytes = 0;
  std::size_t tensors = 0;
  Status status;  // of the manifest and of its files' lengths
  std::optional<Verified> verified;
  bool dropping = false;     // its removal has started
  bool left_behind = false;  // not on the line that the next start continues
  std::vector<std::string> notes;
};

Row examine(const RunFolder& run, const VerifiedHint& hint, const Uid& uid) {
  Row row;
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

std::vector<Row> examine_all(const RunFolder& run) {
  const VerifiedHint hint = read_verified(run);
  const auto& versions = run.history.versions();
  std::vector<Row> rows(versions.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < rows.size(); i = next++) {
      try {
        rows[i] = examine(run, hint, versions[i].uid);
      } catch (const std::bad_alloc&) {  // if it left the thread's function, it would end the process
        rows[i].uid = versions[i].uid;
        rows[i].status = Status(StatusCode::unreadable, "no memory");  // short enough to need no memory of its own
      }
    }
  };
  std::vector<std::thread> others;
  const std::size_t threads = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 8);
  others.reserve(threads);  // an exception while a thread runs would end the process
  for (std::size_t i = 1; i < std::min(threads, rows.size()); ++i) {
    try {
      others.emplace_back(work);
    } catch (const std::exception&) {
      break;  // no more threads, or no memory for one: the running threads do the rest
    }
  }
  work();
  for (std::thread& other : others) other.join();
  return rows;
}

/// What the next start will find when it tries each version.
std::map<Uid, Status> known_failures(const std::vector<Row>& rows) {
  std::map<Uid, Status> failed;
  for (const Row& row : rows) {
    if (!row.status.ok()) {
      failed.emplace(row.uid, row.status);
    } else if (row.verified && !row.verified->ok) {
      failed.emplace(row.uid, Status(StatusCode::corrupt, "holdfast verify found damage in it"));
    }
  }
  return failed;
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

void add_notes(const RunFolder& run, std::vector<Row>& rows) {
  std::map<Uid, Row*> by_uid;
  for (Row& row : rows) by_uid[row.uid] = &row;
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

std::vector<Uid> dropped(const RunFolder& run, const std::vector<Row>& rows) {
  std::set<Uid> gone;
  for (const storage::Note& note : run.history.notes()) {
    if (note.kind == NoteKind::drop) gone.insert(note.about.begin(), note.about.end());
  }
  for (const Row& row : rows) gone.erase(row.uid);
  return {gone.begin(), gone.end()};
}

std::uint64_t bytes_on_disk(const Path& run) {
  std::uint64_t sum = 0;
  for (const char* folder : {"journal", "data", "metrics", "logs", "hints"}) {
    std::vector<std::string> names;
    storage::system_files().list(run / folder, names);
    for (const std::string& name : names) {
      storage::FileInfo info;
      if (storage::system_files().status(run / folder / name, info) >= 0 && !info.is_directory) sum += info.bytes;
    }
  }
  return sum;
}

std::optional<std::int64_t> age_of(const std::string& time) {
  const auto then = parse_time(time);
  return then ? std::optional(std::max<std::int64_t>(0, now() - *then)) : std::nullopt;
}

std::string age_text(const std::string& time) {
  const auto age = age_of(time);
  return age ? format_age(*age) : "?";
}

template <class T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json uid_or_null(const std::optional<Uid>& uid) { return uid ? ordered_json(uid->text()) : ordered_json(); }

/// One word for a version's condition; "ok" does not cover digests.
std::string state_of(const Row& row) {
  if (row.dropping) return "dropping";
  if (!row.status.ok()) return std::string(to_string(row.status.code()));
  return row.verified && !row.verified->ok ? "corrupt" : "ok";
}

ordered_json to_json(const Row& row, bool is_next) {
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

std::string remark_of(const Row& row) {
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

std::string verified_text(const Row& row) {
  if (!row.head) return "-";
  if (!row.verified) return "no";
  return row.verified->ok ? styled(Style::good, "yes") : styled(Style::bad, "damaged");
}

Result<int> list_versions(const Path& path, const Options& options) {
  const auto opened = open_run(path);
  if (!opened) return opened.status();
  const RunFolder& run = **opened;
  std::vector<Row> rows = examine_all(run);
  // A version that a living session removes during this listing is gone, not torn.
  std::erase_if(rows, [](const Row& row) { return row.status.code() == StatusCode::not_found; });
  add_notes(run, rows);
  const auto choice = choose(run, known_failures(rows));
  const std::optional<Uid> next = choice && choice->version ? std::optional(choice->version->uid) : std::nullopt;
  if (next) {
    const auto line = line_to(run, *next);
    for (Row& row : rows) {
      const auto session = line.find(row.uid.session);
      const bool newer = row.uid.session == next->session && row.uid.seq > next->seq;  // in that case it failed to load
      row.left_behind = row.status.ok() && !newer && (session == line.end() || row.uid.seq > session->second);
    }
  }
  const std::vector<Uid> gone = dropped(run, rows);
  const std::uint64_t bytes = bytes_on_disk(path);

  if (options.json) {
    ordered_json json = {{"run", run.name}, {"path", path.string()}, {"bytes_on_disk", bytes}};
    json["next_start"] = {{"version", uid_or_null(next)},
                          {"ok", choice.ok()},
                          {"reason", choice ? choice->reason : choice.status().message()}};
    json["versions"] = ordered_json::array();
    for (const Row& row : rows) json["versions"].push_back(to_json(row, next == row.uid));
    json["dropped"] = ordered_json::array();
    for (const Uid& uid : gone) json["dropped"].push_back(uid.text());
    json["sessions"] = ordered_json::array();
    std::map<std::string, const storage::Note*> ends;
    for (const storage::Note& note : run.history.notes()) {
      if (note.kind == NoteKind::close || note.kind == NoteKind::death) ends[note.uid.session] = &note;
    }
    for (const storage::OpenEntry& open : run.history.opens()) {
      const auto end = ends.find(open.uid.session);
      json["sessions"].push_back({{"session", open.uid.session},
                                  {"order", open.epoch},
                                  {"time", open.time},
                                  {"host", open.host},
                                  {"pid", open.pid},
                                  {"platform", open.platform},
                                  {"base", uid_or_null(open.base)},
                                  {"rewind", open.rewind},
                                  {"ended", end == ends.end() ? ordered_json() : ordered_json(end->second->reason)}});
    }
    json["warnings"] = run.history.warnings();
    print_json(json);
    return kOk;
  }

  print(fmt::format("{} in {}\n", styled(Style::bold, "run " + printable(run.name)), printable(path.string())));
  if (!rows.empty()) {
    Table table;
    table.column("", Table::Align::left);
    for (const char* heading : {"version", "step", "epoch", "age", "size", "tensors"}) {
      table.column(heading, Table::Align::right);
    }
    for (const char* heading : {"durability", "verified", ""}) table.column(heading, Table::Align::left);
    for (const Row& row : rows) {
      const bool is_next = next == row.uid;
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
    print(table.text());
  }

  std::string summary = rows.empty() ? "no versions" : plural(rows.size(), "version");
  summary += fmt::format(", {} on disk, {}", format_bytes(bytes), plural(run.history.opens().size(), "session"));
  if (!gone.empty())
    summary += fmt::format("; {} removed earlier, up to number {}", format_count(gone.size()), gone.back().seq);
  print(summary + "\n");
  if (!choice) {
    print(styled(Style::bad, "the next start stops: " + printable(choice.status().message())) + "\n");
  } else if (next) {
    print(fmt::format("> the next start resumes from {}\n", label_of(run, *next)));
  } else {
    print("the next start begins from scratch\n");
  }
  for (const std::string& warning : run.history.warnings())
    print(styled(Style::dim, "note: " + printable(warning)) + "\n");
  return kOk;
}

/// One line in the list of a folder of runs. Only the journal and the latest version's manifest are read.
struct RunLine {
  std::string name;
  Path path;
  std::size_t versions = 0;
  std::size_t sessions = 0;
  std::uint64_t bytes = 0;
  std::optional<Uid> latest;
  std::string label;
  std::optional<storage::Manifest> head;
  std::vector<std::string> passed_over;  // newer versions
  Status status;
};

RunLine describe(const Path& path) {
  RunLine line;
  line.path = path;
  line.name = name_of(path);
  const auto run = open_run(path);
  line.bytes = bytes_on_disk(path);
  if (!run) {
    line.status = run.status();
    return line;
  }
  line.versions = (*run)->history.versions().size();
  line.sessions = (*run)->history.opens().size();
  if (line.versions == 0) {
    const auto choice = choose(**run, {});
    if (!choice) line.status = choice.status();
    return line;
  }
  const auto target = find_target(path.string(), "", /*loadable=*/true);
  if (!target) {
    if (target.code() != StatusCode::not_found) line.status = target.status();
    return line;
  }
  const auto checkpoint = open_version_head(**run, target->uid);
  if (!checkpoint) {
    line.status = checkpoint.status();
    return line;
  }
  line.latest = target->uid;
  line.label = label_of(**run, target->uid);
  line.head = checkpoint->manifest;
  for (const storage::PassedOver& passed : target->passed_over) {
    line.passed_over.push_back(passed.uid.short_text() + " cannot be loaded");
  }
  return line;
}

Result<int> list_runs(const Path& folder, const Options& options) {
  const auto paths = runs_in(folder);
  if (!paths) return paths.status();
  std::vector<RunLine> lines;
  for (const Path& path : *paths) lines.push_back(describe(path));
  const bool all_read = std::all_of(lines.begin(), lines.end(), [](const RunLine& line) {
    return line.status.code() != StatusCode::permission_denied && line.status.code() != StatusCode::unreadable;
  });

  if (options.json) {
    ordered_json json = {{"path", folder.string()}, {"runs", ordered_json::array()}};
    for (const RunLine& line : lines) {
      ordered_json item = {{"run", line.name},          {"path", line.path.string()},  {"versions", line.versions},
                           {"sessions", line.sessions}, {"bytes_on_disk", line.bytes}, {"latest", nullptr}};
      if (line.latest) {
        item["latest"] = {{"uid", line.latest->text()},       {"number", line.latest->seq},
                          {"step", line.head->position.step}, {"epoch", line.head->position.epoch},
                          {"time", line.head->time},          {"age_seconds", or_null(age_of(line.head->time))}};
      }
      item["passed_over"] = line.passed_over;
      item["problem"] = line.status.ok() ? ordered_json() : ordered_json(line.status.message());
      json["runs"].push_back(std::move(item));
    }
    print_json(json);
    return all_read ? kOk : kUnreadable;
  }

  Table table;
  table.column("run", Table::Align::left);
  for (const char* heading : {"versions", "latest", "step", "age", "size"}) table.column(heading, Table::Align::right);
  table.column("", Table::Align::left);
  for (const RunLine& line : lines) {
    const std::string name = styled(Style::bold, printable(line.name));
    const std::string problem =
        styled(Style::bad, line.status.ok() ? fmt::format("{}", fmt::join(line.passed_over, ", "))
                                            : printable(line.status.message()));
    table.row({name, format_count(line.versions), line.latest ? line.label : "-",
               line.head ? format_count(line.head->position.step) : "-", line.head ? age_text(line.head->time) : "-",
               format_bytes(line.bytes), problem});
  }
  print(table.text());
  return all_read ? kOk : kUnreadable;
}

Result<int> run_ls(const Options& options) {
  Path path(options.path);
  // A program keeps its runs in "runs" by default, so that is where a bare `holdfast ls` looks.
  if (options.path.empty()) {
    const auto here = place_of("runs");
    path = here && (*here == Place::folder || *here == Place::run) ? "runs" : ".";
  }
  const auto place = place_of(path);
  if (!place) return place.status();
  if (*place == Place::run) return list_versions(path, options);
  if (*place == Place::folder) {
    const auto runs = runs_in(path);
    if (!runs) return runs.status();
    if (!runs->empty()) return list_runs(path, options);
  }
  if (options.path.empty()) {
    return Status(StatusCode::not_found,
                  "neither the current folder nor a folder \"runs\" in it holds a run; name one: holdfast ls PATH");
  }
  return not_a_run(path);
}

}  // namespace

void add_ls(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand(
      "ls", "Lists the runs in a folder, or the versions of a run; > marks the one that the next start resumes from.");
  verb->add_option("PATH", options->path, "a folder of runs, or one run (default: runs, else the current folder)");
  verb->add_flag("--json", options->json, "one JSON object instead of a table");
  verb->footer(help_footer(
      "  holdfast ls runs\n  holdfast ls runs/mnist",
      "  a folder: path, runs[]: run, path, versions, sessions, bytes_on_disk, passed_over[], problem,\n"
      "            latest: uid, number, step, epoch, time, age_seconds\n"
      "  a run:    run, path, bytes_on_disk, next_start: version, ok, reason; warnings[], dropped[] (uids),\n"
      "            versions[]: uid, number, session, step, epoch, samples, time, age_seconds, reason, bytes, tensors,\n"
      "            durability, parent, non_finite (numbers that are NaN or infinite; null: not counted), metrics,\n"
      "            verified: ok, time (null: not verified); state (ok, corrupt,\n"
      "            incomplete, unreadable, unsupported, dropping), problem, next, left_behind, notes[];\n"
      "            sessions[]: session, order, time, host, pid, platform, base, rewind, ended\n"
      "  an error: error: code, message, exit",
      "  0  listed, damaged versions included\n  2  wrong command line\n"
      "  3  there is no such folder or run, or something in it cannot be read"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_ls(*options); };
  });
}

}  // namespace holdfast::tools
