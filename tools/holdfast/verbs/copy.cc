// holdfast copy: a run, or one of its versions, in another folder.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/tiers/mirror.h"
#include "inspect/target.h"
#include "inspect/verification.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::MirroredVersion;
using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::Uid;

namespace {

struct CopyOptions {
  std::string source;
  std::string destination;
  bool json = false;
};

struct Source {
  std::shared_ptr<const RunFolder> run;
  std::vector<Uid> versions;  // newest first, so that an interrupted copy has the newest one
};

Result<Source> find_source(const std::string& text) {
  const auto place = place_of(text);
  if (place && *place == Place::run) {
    auto run = open_run(text);
    if (!run) return run.status();
    Source source{*std::move(run), {}};
    const auto& versions = source.run->history.versions();
    for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
      if (!source.run->history.is_dropped(version->uid)) source.versions.push_back(version->uid);
    }
    if (source.versions.empty()) return Status(StatusCode::not_found, "run " + source.run->name + " has no versions");
    return source;
  }
  auto target = find_target(text, "", /*loadable=*/false);
  if (!target) return target.status();
  if (!target->run) {
    return Status(StatusCode::invalid, text + " is a single file: copy it with cp, or name its run");
  }
  return Source{target->run, {target->uid}};
}

/// As cp does: into a folder that exists, else as that folder.
Result<Path> find_destination(const std::string& text, const RunFolder& source) {
  const auto place = place_of(text);
  if (!place) return place.status();
  if (*place == Place::file) return Status(StatusCode::invalid, text + " is a file; name a folder");
  const Path folder = *place == Place::folder ? Path(text) / source.name : Path(text);
  if (absolute_of(folder) == absolute_of(source.path)) {
    return Status(StatusCode::invalid, "the copy would be the run itself: name another folder");
  }
  return folder;
}

// Storage names a program's option in its remedies.
Status of_command(const Status& status) {
  std::string message = status.message();
  constexpr std::string_view kOption = " with --holdfast.dir";
  if (const auto at = message.find(kOption); at != std::string::npos) message.erase(at, kOption.size());
  return {status.code(), message};
}

/// Payload bytes, each of which is copied and read back.
std::uint64_t work_of(const Source& source) {
  std::uint64_t bytes = 0;
  for (const Uid& uid : source.versions) {
    const auto version = storage::VersionReader::open(*source.run->store, uid);
    if (version) bytes += 2 * version->manifest().payload_bytes();
  }
  return bytes;
}

storage::SessionOrder last_session(const RunFolder& run) {
  const auto& opens = run.history.opens();
  if (opens.empty()) return {};
  return {opens.back().epoch, opens.back().uid.session};
}

ordered_json to_json(const Uid& uid, const Result<MirroredVersion>& copied) {
  return {{"uid", uid.text()},
          {"ok", copied.ok()},
          {"bytes", copied ? copied->bytes : 0},
          {"durability", copied ? ordered_json(copied->durability) : ordered_json()},
          {"problem", copied ? ordered_json() : ordered_json(copied.status().message())}};
}

std::string text_of(const RunFolder& run, const Uid& uid, const Result<MirroredVersion>& copied) {
  if (!copied) {
    return fmt::format("version {}: {}, {}\n", label_of(run, uid), styled(Style::bad, "not copied"),
                       printable(copied.status().message()));
  }
  const std::string what = copied->bytes == 0 ? "was there already, and matches its digests"
                                              : format_bytes(copied->bytes) + " copied and read back";
  return fmt::format("version {}: {} ({})\n", label_of(run, uid), what, copied->durability);
}

Result<int> run_copy(const CopyOptions& options) {
  const auto source = find_source(options.source);
  if (!source) return source.status();
  const RunFolder& run = *source->run;
  const auto folder = find_destination(options.destination, run);
  if (!folder) return folder.status();

  const auto destination = storage::open_file_store(*folder);
  storage::MirrorOptions how;
  how.session = last_session(run);
  how.drops = false;
  Progress progress("copying " + printable(run.name));
  std::uint64_t done = 0;
  const std::uint64_t total = work_of(*source);
  how.proceed = [&](std::uint64_t bytes) {
    done += bytes;
    progress.update(std::min(done, total), total);
    return true;
  };
  storage::Mirror mirror(*run.store, *destination, how);
  if (Status opened = mirror.open(); !opened.ok()) {
    if (opened.code() != StatusCode::superseded) return of_command(opened);
    return Status(StatusCode::superseded, opened.message() + ", later than " + run.path.string() +
                                              " was: nothing was copied, because the run continues there");
  }
  int code = kOk;
  ordered_json versions = ordered_json::array();
  std::string lines;
  for (const Uid& uid : source->versions) {
    const auto copied = mirror.copy(uid);
    if (copied.code() == StatusCode::superseded) return copied.status();
    if (!copied && !is_damage(copied.code())) return of_command(copied.status());
    if (!copied) code = kFound;
    versions.push_back(to_json(uid, copied));
    lines += text_of(run, uid, copied);
  }
  if (Status records = mirror.copy_records(); !records.ok()) return of_command(records);
  if (options.json) {
    print_json({{"run", run.name},
                {"source", run.path.string()},
                {"destination", folder->string()},
                {"ok", code == kOk},
                {"versions", std::move(versions)}});
  } else {
    print(lines + fmt::format("run {} is also in {}\n", printable(run.name), printable(folder->string())));
  }
  return code;
}

}  // namespace

void add_copy(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<CopyOptions>();
  CLI::App* verb = app.add_subcommand(
      "copy",
      "Copy a run, or one of its versions, to another folder: every byte is compared with its digest, written, and "
      "read "
      "back. What is there already is not copied again, so an interrupted copy continues. A program resumes from the "
      "copy as from the original.");
  verb->add_option("SOURCE", options->source, "a run, or a version such as runs/mnist/42")->required()->type_name("");
  verb->add_option(
          "FOLDER", options->destination,
          "the new folder of the run; if it exists and is not a run, the copy goes into it under the run's name")
      ->required()
      ->type_name("");
  verb->add_flag("--json", options->json, "print one JSON object instead of text");
  verb->footer(
      help_footer("  holdfast copy runs/mnist /mnt/backup\n  holdfast copy runs/mnist/42 /content/drive/MyDrive/best",
                  "  run, source, destination, ok, versions[]: uid, ok, bytes (copied now), durability, problem\n"
                  "  an error: error: code, message, exit",
                  "  0  copied\n  1  a version is damaged or was removed, and is not copied\n  2  wrong command line\n"
                  "  3  there is no such run, it cannot be read, or the folder cannot be written"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_copy(*options); };
  });
}

}  // namespace holdfast::tools
