// holdfast verify: recomputes every digest of a version, or of all versions of a run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "inspect/checkpoint.h"
#include "inspect/verification.h"
#include "inspect/verified_hint.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::Finding;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::Uid;

namespace {

struct VerifyOptions {
  std::string version;
  std::string number;
  bool all = false;
  bool json = false;
};

ordered_json to_json(const Finding& finding) {
  return {{"code", to_string(finding.code)},
          {"file", finding.file},
          {"tensor", finding.tensor.empty() ? ordered_json() : ordered_json(finding.tensor)},
          {"begin", finding.begin},
          {"end", finding.end},
          {"message", finding.what}};
}

ordered_json to_json(const Verification& report) {
  ordered_json json = {{"uid", report.uid.text()},
                       {"ok", report.findings.empty() && report.unreadable.ok() && !report.removed},
                       {"bytes", report.bytes},
                       {"tensors", report.tensors},
                       {"removed", report.removed},
                       {"problem", report.unreadable.ok() ? ordered_json() : ordered_json(report.unreadable.message())},
                       {"findings", ordered_json::array()}};
  for (const Finding& finding : report.findings) json["findings"].push_back(to_json(finding));
  return json;
}

std::string text_of(const Finding& finding) {
  std::string place = printable(finding.file);
  if (!finding.tensor.empty()) place += ", tensor " + in_quotes(finding.tensor);
  if (finding.end > finding.begin) place += fmt::format(", bytes {} to {}", finding.begin, finding.end);
  return fmt::format("  {}: {}\n", place, printable(finding.what));
}

void print_report(const Verification& report) {
  if (report.removed)
    return print(fmt::format("{}: removed by the run's own session during the verification\n", report.title));
  if (!report.unreadable.ok()) {
    return print(fmt::format("{}: {}, {}\n", report.title, styled(Style::bad, "cannot be read"),
                             printable(report.unreadable.message())));
  }
  if (report.findings.empty()) {
    return print(fmt::format("{}: {}, {} and {} match their digests\n", report.title, styled(Style::good, "ok"),
                             plural(report.tensors, "tensor"), format_bytes(report.bytes)));
  }
  print(
      fmt::format("{}: {}\n", report.title, styled(Style::bad, plural(report.findings.size(), "problem") + " found")));
  for (const Finding& finding : report.findings) print(text_of(finding));
}

/// For a single file only the structure can be checked.
Result<int> verify_file(const storage::Path& file, const VerifyOptions& options) {
  const auto checkpoint = open_safetensors(file);
  if (!checkpoint && !is_damage(checkpoint.code())) return checkpoint.status();
  if (!checkpoint && checkpoint.code() == StatusCode::not_found) return checkpoint.status();
  if (options.json) {
    ordered_json json = {
        {"path", file.string()}, {"ok", checkpoint.ok()}, {"digests", false}, {"versions", ordered_json::array()}};
    json["findings"] = ordered_json::array();
    if (!checkpoint) {
      json["findings"].push_back(
          to_json(Finding{checkpoint.code(), file.string(), "", 0, 0, checkpoint.status().message()}));
    }
    print_json(json);
    return checkpoint ? kOk : kFound;
  }
  if (!checkpoint) {
    print(fmt::format("{}\n", printable(checkpoint.status().message())));
    return kFound;
  }
  print(fmt::format("{}: {}, {} in {}; a safetensors file has no digests, so only its structure was checked\n",
                    checkpoint->title, styled(Style::good, "well-formed"),
                    plural(checkpoint->manifest.tensors.size(), "tensor"),
                    format_bytes(checkpoint->manifest.payload_bytes())));
  const auto uid = checkpoint->metadata.find("holdfast.uid");
  const auto run = file.parent_path().parent_path();
  if (uid != checkpoint->metadata.end() && file.parent_path().filename() == "data" && place_of(run).ok() &&
      *place_of(run) == Place::run) {
    print(fmt::format("its run knows its digests: holdfast verify {} {}\n", run.string(), printable(uid->second)));
  }
  return kOk;
}

Result<int> run_verify(const VerifyOptions& options) {
  if (options.all && !options.number.empty())
    return Status(StatusCode::invalid, "--all verifies every version; leave out either --all or the number");
  // The version that a session would try first, damaged or not: verify must not skip the damage that it looks for.
  std::shared_ptr<const RunFolder> run;
  std::vector<Uid> uids;
  if (options.all) {
    const auto place = place_of(options.version);
    if (!place) return place.status();
    if (*place != Place::run) return not_a_run(options.version);
    auto opened = open_run(options.version);
    if (!opened) return opened.status();
    run = *std::move(opened);
    for (const storage::VersionRef& version : run->history.versions()) {
      if (!run->history.is_dropped(version.uid)) uids.push_back(version.uid);
    }
    if (uids.empty()) return Status(StatusCode::not_found, "run " + run->name + " has no version to verify");
  } else {
    auto target = find_target(options.version, options.number, /*loadable=*/false);
    if (!target) return target.status();
    if (!target->run) return verify_file(target->file, options);
    run = target->run;
    uids.push_back(target->uid);
  }

  int code = kOk;
  ordered_json json = {{"path", run->path.string()}, {"run", run->name}, {"digests", true}};
  json["versions"] = ordered_json::array();
  VerifiedHint results;
  std::size_t bad = 0;
  for (const Uid& uid : uids) {
    const Verification report = verify(*run, uid);
    if (!report.findings.empty()) {
      code = kFound;
      ++bad;
    } else if (code == kOk && (!report.unreadable.ok() || (report.removed && !options.all))) {
      code = kUnreadable;
    }
    if (report.manifest != storage::Digest() && report.unreadable.ok() && !report.removed) {
      results[uid] = {report.manifest, report.findings.empty(), time_text()};
    }
    if (options.json) {
      json["versions"].push_back(to_json(report));
    } else {
      print_report(report);
      std::fflush(stdout);
    }
  }
  const bool recorded = !results.empty() && add_verified(*run, results).ok();
  if (options.json) {
    json["ok"] = code == kOk;
    json["recorded"] = recorded;
    print_json(json);
  } else if (uids.size() > 1) {
    print(bad == 0 ? fmt::format("{} verified\n", plural(uids.size(), "version"))
                   : fmt::format("{} of {} have problems\n", bad, plural(uids.size(), "version")));
  }
  return code;
}

}  // namespace

void add_verify(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* verb = app.add_subcommand("verify",
                                      "Recompute every digest of a version. The result is recorded in the run's folder "
                                      "hints, if it is writable, and holdfast ls shows it.");
  verb->add_option("VERSION", options->version, "what to verify")->required()->type_name("");
  verb->add_option("NUMBER", options->number, "the number of the version, if VERSION is a run")->type_name("");
  verb->add_flag("--all", options->all, "verify every version of the run");
  verb->add_flag("--json", options->json, "print one JSON object instead of text");
  verb->footer(
      std::string(kVersionHelp) +
      help_footer("  holdfast verify runs/mnist\n  holdfast verify runs/mnist --all && echo every version is intact",
                  "  path, run, ok, digests (false: a plain file, structure only), recorded (in hints/verified.json),\n"
                  "  versions[]: uid, ok, bytes, tensors, removed, problem,\n"
                  "              findings[]: code, file, tensor, begin, end (absolute bytes in the file), message\n"
                  "  a plain file: findings[] beside path\n"
                  "  an error:     error: code, message, exit",
                  "  0  intact\n  1  something is damaged or missing\n  2  wrong command line\n"
                  "  3  there is no such version, or it cannot be read"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_verify(*options); };
  });
}

}  // namespace holdfast::tools
