#include "inspect/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <cstring>

#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/text/nearest_name.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::FileInfo;
using storage::meant_name;
using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::system_files;

namespace {

Status closed(const Path& path, int error) {
  const bool refused = error == EACCES || error == EPERM;
  return {refused ? StatusCode::permission_denied : StatusCode::unreadable,
          "cannot look at " + path.string() + ": " +
              (refused ? "permission denied; give this user access to the folders on the way" : std::strerror(error))};
}

bool is_folder(const Path& path) {
  FileInfo info;
  return system_files().status(path, info) >= 0 && info.is_directory;
}

std::vector<std::string> sorted_names(const Path& folder) {
  std::vector<std::string> names;
  system_files().list(folder, names);
  std::sort(names.begin(), names.end());
  return names;
}

/// "a, b, c, … (12 in all)".
std::string first_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 6;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > kShown ? fmt::format("{}, … ({} in all)", text, names.size()) : text;
}

std::vector<std::string> names_of(const std::vector<Path>& paths) {
  std::vector<std::string> names;
  for (const Path& path : paths) names.push_back(path.filename().string());
  return names;
}

Status no_such_path(const Path& path) {
  Path there = path.parent_path();
  Path missing = path;
  while (!there.empty() && !is_folder(there)) {
    missing = there;
    there = there.parent_path();
  }
  const Path folder = there.empty() ? Path(".") : there;
  std::vector<std::string> folders;
  for (const std::string& name : sorted_names(folder)) {
    if (!name.starts_with('.')) folders.push_back(name);
  }
  const std::string sentence = "there is no " + path.string();
  std::string nearest = meant_name(missing.filename().string(), folders);
  if (!nearest.empty()) return {StatusCode::not_found, sentence + "; did you mean " + (there / nearest).string() + "?"};
  // A run's bare name was given, but the run lies in a folder of runs.
  for (const std::string& name : folders) {
    if (place_of(folder / name / path.filename()).ok() && *place_of(folder / name / path.filename()) == Place::run) {
      return {StatusCode::not_found, sentence + "; did you mean " + (there / name / path.filename()).string() + "?"};
    }
  }
  if (missing != path) return {StatusCode::not_found, sentence + "; its folder " + missing.string() + " is missing"};
  const auto runs = runs_in(folder);
  if (runs && !runs->empty()) {
    return {StatusCode::not_found, sentence + "; the runs in " + folder.string() + " are " + first_of(names_of(*runs))};
  }
  return {StatusCode::not_found, "there is no file or folder " + path.string()};
}

}  // namespace

Path absolute_of(const Path& path) {
  boost::system::error_code error;
  return (path.is_absolute() ? path : boost::filesystem::current_path(error) / path).lexically_normal();
}

std::string name_of(const Path& path) {
  Path absolute = absolute_of(path);
  if (absolute.filename_is_dot()) absolute = absolute.parent_path();
  return absolute.filename().string();
}

Result<Place> place_of(const Path& path) {
  FileInfo info;
  if (const int asked = system_files().status(path, info); asked < 0) {
    if (asked == -ENOENT || asked == -ENOTDIR || asked == -ENAMETOOLONG) return Place::missing;
    return closed(path, -asked);
  }
  if (!info.is_directory) return Place::file;
  const int asked = system_files().status(path / "journal", info);
  if (asked == -EACCES || asked == -EPERM) return closed(path, -asked);
  return asked >= 0 && info.is_directory ? Place::run : Place::folder;
}

Result<std::shared_ptr<const RunFolder>> open_run(const Path& path) {
  auto run = std::make_shared<RunFolder>();
  run->path = path;
  run->name = name_of(path);
  run->store = storage::open_file_store(path, {.read_only = true, .direct_io = false});
  if (Status status = run->history.refresh(*run->store); !status) return status;
  return std::shared_ptr<const RunFolder>(std::move(run));
}

Result<std::vector<Path>> runs_in(const Path& folder) {
  std::vector<std::string> names;
  if (const int listed = system_files().list(folder, names); listed < 0) return closed(folder, -listed);
  std::sort(names.begin(), names.end());
  std::vector<Path> runs;
  for (const std::string& name : names) {
    if (is_folder(folder / name / "journal")) {
      runs.push_back(folder / name);
      continue;
    }
    // A run that this user may not read gets its own line instead of being left out.
    FileInfo info;
    if (is_folder(folder / name) && system_files().status(folder / name / "journal", info) == -EACCES) {
      runs.push_back(folder / name);
    }
  }
  return runs;
}

std::uint64_t bytes_on_disk(const storage::Store& run) {
  std::uint64_t sum = 0;
  for (const char* folder : {"journal", "data", "metrics", "logs", "hints"}) {
    const auto names = run.list(folder);
    if (!names) continue;
    for (const std::string& name : *names) {
      const auto object = run.open(name);
      if (object) sum += (*object)->bytes();
    }
  }
  return sum;
}

Status not_a_run(const Path& path) {
  const auto place = place_of(path);
  if (!place) return place.status();
  if (*place == Place::missing) return no_such_path(path);
  const std::string& text = path.string();
  if (*place == Place::file) {
    return {StatusCode::invalid, text + " is a file, not a run's folder; inspect it with holdfast show " + text};
  }
  Path absolute = absolute_of(path);
  if (absolute.filename_is_dot()) absolute = absolute.parent_path();
  if (is_folder(absolute.parent_path() / "journal")) {
    return {StatusCode::not_found,
            text + " is a part of the run " + absolute.parent_path().string() + "; name the run instead"};
  }
  const auto runs = runs_in(path);
  if (!runs) return runs.status();
  if (!runs->empty()) {
    return {StatusCode::invalid, text + " holds several runs; name one of them: " + first_of(names_of(*runs))};
  }
  for (const std::string& name : sorted_names(path)) {
    if (!is_folder(path / name)) continue;
    const auto deeper = runs_in(path / name);
    if (deeper && !deeper->empty()) {
      return {StatusCode::not_found, text + " contains no run; did you mean " + (path / name).string() +
                                         "? It contains " + first_of(names_of(*deeper))};
    }
  }
  return {StatusCode::not_found, text + " contains no run: a run's folder contains a folder \"journal\""};
}

Result<storage::Choice> choose(const RunFolder& run, const std::map<storage::Uid, Status>& failed) {
  storage::ChooseOptions options;
  if (!run.history.opens().empty()) options.program = run.history.opens().back().program;
  options.failed = failed;
  return choose_base(run.history, options);
}

std::string label_of(const RunFolder& run, const storage::Uid& uid) {
  int others = 0;
  for (const storage::VersionRef& version : run.history.versions()) others += version.uid.seq == uid.seq ? 1 : 0;
  return others > 1 ? uid.short_text() : std::to_string(uid.seq);
}

std::string title_of(const RunFolder& run, const storage::Uid& uid) {
  return "version " + label_of(run, uid) + " of run " + printable(run.name);
}

}  // namespace holdfast::tools
