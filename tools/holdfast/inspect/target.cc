#include "inspect/target.h"

#include <map>

#include "inspect/checkpoint.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::EntryKind;
using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::Uid;

namespace {

bool is_number(std::string_view text) {
  return !text.empty() && text[0] >= '0' && text[0] <= '9' &&
         text.find_first_not_of("0123456789abcdef-") == std::string_view::npos;
}

Result<Target> version_of(std::shared_ptr<const RunFolder> run, const std::string& number) {
  const auto found = find_version(run->history, number);
  if (!found && found.code() == StatusCode::not_found) {
    for (const storage::Note& note : run->history.notes()) {
      if (note.kind != storage::NoteKind::drop) continue;
      for (const Uid& uid : note.about) {
        if (std::to_string(uid.seq) == number || uid.short_text() == number || uid.text() == number) {
          return Status(StatusCode::not_found, "version " + number + " of run " + run->name + " was removed (" +
                                                   note.reason + "); holdfast ls " + run->path.string() +
                                                   " lists the existing versions");
        }
      }
    }
    return Status(StatusCode::not_found, "run " + run->name + ": " + found.status().message());
  }
  if (!found) return found.status();
  return Target{std::move(run), found->uid, {}, {}};
}

/// The newest version, or the newest that loads, in the order in which a session would try them.
Result<Target> latest_of(std::shared_ptr<const RunFolder> run, bool loadable) {
  std::map<Uid, Status> failed;
  while (true) {
    auto choice = choose(*run, failed);
    if (!choice) return Status(choice.code(), "run " + run->name + ": " + choice.status().message());
    if (!choice->version) {
      return Status(StatusCode::not_found,
                    "run " + run->name + " has no version yet: no session saved one in " + run->path.string());
    }
    const Uid uid = choice->version->uid;
    if (!loadable) return Target{std::move(run), uid, {}, {}};
    const auto checkpoint = open_version_head(*run, uid);
    Status status = checkpoint ? checkpoint->damage : checkpoint.status();
    if (status.ok()) return Target{std::move(run), uid, {}, choice->passed_over};
    if (status.code() == StatusCode::permission_denied || status.code() == StatusCode::unreadable) return status;
    failed.emplace(uid, std::move(status));
  }
}

Result<Target> target_in(const Path& path, const std::string& number, bool loadable) {
  auto run = open_run(path);
  if (!run) return run.status();
  return number.empty() ? latest_of(*std::move(run), loadable) : version_of(*std::move(run), number);
}

/// A regular file: a manifest of a run, or a file that must be safetensors.
Result<Target> target_of_file(const Path& path) {
  const auto entry = storage::parse_entry_name("journal/" + path.filename().string());
  if (!entry) return Target{nullptr, {}, path, {}};
  if (entry->kind != EntryKind::save) {
    return Status(StatusCode::invalid,
                  path.string() + " is a journal entry, but not the manifest of a version (.save.json)");
  }
  const Path absolute = absolute_of(path);
  if (absolute.parent_path().filename() != "journal") {
    return Status(StatusCode::invalid, path.string() +
                                           " is a manifest outside of its run's folder \"journal\", so its "
                                           "files cannot be found; give its path in that folder");
  }
  return target_in(absolute.parent_path().parent_path(), entry->uid.text(), false);
}

}  // namespace

Result<Target> find_target(const std::string& text, const std::string& number, bool loadable) {
  const Path path(text);
  const auto place = place_of(path);
  if (!place) return place.status();
  if (!number.empty()) {
    if (*place == Place::run) return target_in(path, number, loadable);
    if (*place == Place::file) {
      return Status(StatusCode::invalid, text + " is a file, not a run, so it has no version " + in_quotes(number));
    }
    return not_a_run(path);
  }
  if (*place == Place::run) return target_in(path, "", loadable);
  if (*place == Place::file) return target_of_file(path);

  const std::size_t split = text.find_last_of("@/");
  if (*place == Place::missing && split != std::string::npos && split > 0) {
    const std::string folder = text.substr(0, split);
    const std::string rest = text.substr(split + 1);
    const auto there = place_of(folder);
    if (there && *there == Place::run && (text[split] == '@' || is_number(rest))) {
      return target_in(folder, rest, loadable);
    }
    if (text[split] == '@' && !folder.empty()) return not_a_run(folder);
  }
  if (*place == Place::missing && is_number(text) && text.find_first_not_of("0123456789") == std::string::npos) {
    return Status(StatusCode::not_found,
                  "there is no file or folder " + text + "; name the run before the number, as in runs/mnist " + text);
  }
  return not_a_run(path);
}

}  // namespace holdfast::tools
