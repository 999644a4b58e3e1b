// holdfast ls: the runs in a folder, or the versions of a run.
#include "verbs/ls.h"

#include <CLI/CLI.hpp>

#include "verb.h"

namespace holdfast::tools {

using storage::Path;
using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

struct LsOptions {
  std::string path;
  bool json = false;
};

Result<int> run_ls(const LsOptions& options) {
  Path path(options.path);
  // A program keeps its runs in "runs" by default, so that is where a bare `holdfast ls` looks.
  if (options.path.empty()) {
    const auto here = place_of("runs");
    path = here && (*here == Place::folder || *here == Place::run) ? "runs" : ".";
  }
  const auto place = place_of(path);
  if (!place) return place.status();
  if (*place == Place::run) return list_versions(path, options.json);
  if (*place == Place::folder) {
    const auto runs = runs_in(path);
    if (!runs) return runs.status();
    if (!runs->empty()) return list_runs(path, options.json);
  }
  if (options.path.empty()) {
    return Status(StatusCode::not_found,
                  "neither the current folder nor a folder \"runs\" in it contains a run; name one: holdfast ls PATH");
  }
  return not_a_run(path);
}

}  // namespace

void add_ls(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<LsOptions>();
  CLI::App* verb = app.add_subcommand(
      "ls",
      "List the runs in a folder, or the versions of a run. > marks the version that the next start resumes from.");
  verb->add_option("PATH", options->path, "a folder of runs, or one run (default: runs, else the current folder)")
      ->type_name("");
  verb->add_flag("--json", options->json, "print one JSON object instead of a table");
  verb->footer(help_footer(
      "  holdfast ls runs\n  holdfast ls runs/mnist",
      "  a folder: path, runs[]: run, path, versions, sessions, bytes_on_disk, passed_over[], problem,\n"
      "            latest: uid, number, step, epoch, time, age_seconds\n"
      "  a run:    run, path, bytes_on_disk, next_start: version, ok, reason; warnings[], dropped[] (uids),\n"
      "            versions[]: uid, number, session, step, epoch, samples, time, age_seconds, reason, bytes, tensors,\n"
      "            durability, parent, non_finite (numbers that are NaN or infinite; null: not counted), metrics,\n"
      "            verified: ok, time (null: not verified); state (ok, corrupt,\n"
      "            incomplete, unreadable, unsupported, dropping), problem, next, left_behind, notes[];\n"
      "            mirrors[]: place, versions (uid: durability), as of the last copy;\n"
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
