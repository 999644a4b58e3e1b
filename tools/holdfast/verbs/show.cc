// holdfast show: the contents of one version or one safetensors file.
#include "verbs/show.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "holdfast/storage/text/nearest_name.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using storage::meant_name;
using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

struct ShowOptions {
  std::string version;
  std::string number;
  std::vector<std::string> filters;
  bool stats = false;
  bool json = false;
};

bool matches(const std::string& name, const std::vector<std::string>& filters) {
  return filters.empty() || std::any_of(filters.begin(), filters.end(), [&](const std::string& filter) {
           return ::fnmatch(filter.c_str(), name.c_str(), 0) == 0;
         });
}

Result<std::vector<ShownTensor>> select(const Checkpoint& checkpoint, const ShowOptions& options) {
  const std::vector<std::string> names = checkpoint.tensor_names();
  std::vector<ShownTensor> lines;
  for (const std::string& name : names) {
    if (!matches(name, options.filters)) continue;
    ShownTensor line{name, checkpoint.manifest.find(name), "", std::nullopt};
    if (const auto tied = checkpoint.manifest.tied.find(name); tied != checkpoint.manifest.tied.end()) {
      line.tied_to = tied->second;
    }
    lines.push_back(std::move(line));
  }
  if (!lines.empty() || options.filters.empty()) return lines;
  std::string nearest = meant_name(options.filters.front(), names);
  return Status(StatusCode::not_found,
                fmt::format("no tensor of {} matches {}; {}", checkpoint.title, in_quotes(options.filters.front()),
                            names.empty() ? "it has none"
                            : nearest.empty()
                                ? "its first is " + in_quotes(names.front()) + "; * matches any characters, as in \"*" +
                                      printable(options.filters.front()) + "*\""
                                : "did you mean " + in_quotes(nearest) + "?"));
}

Result<int> run_show(const ShowOptions& options) {
  const auto target = find_target(options.version, options.number, /*loadable=*/true);
  if (!target) return target.status();
  const auto checkpoint = open_checkpoint(*target);
  if (!checkpoint) return checkpoint.status();
  auto lines = select(*checkpoint, options);
  if (!lines) return lines.status();

  if (options.stats) {
    Progress progress("reading");
    std::uint64_t done = 0, total = 0;
    for (const ShownTensor& line : *lines) total += line.tensor->bytes();
    for (ShownTensor& line : *lines) {
      auto stats =
          stats_of(*checkpoint, *line.tensor, [&](std::uint64_t bytes) { progress.update(done += bytes, total); });
      if (!stats) return stats.status();
      line.stats = *stats;
    }
  }

  const Shown shown{*checkpoint, target->passed_over, *lines};
  if (options.json)
    print_json(show_json(shown));
  else
    show_text(shown, options.stats);
  return kOk;
}

}  // namespace

void add_show(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<ShowOptions>();
  CLI::App* verb = app.add_subcommand(
      "show", "Show the contents of a version or a safetensors file. Tensor bytes are read only with --stats.");
  verb->add_option("VERSION", options->version, "what to show")->required()->type_name("");
  verb->add_option("NUMBER", options->number, "the number of the version, if VERSION is a run")->type_name("");
  verb->add_flag(
      "--stats", options->stats,
      "minimum, maximum and mean of each tensor without its NaN elements, and their number; for complex numbers, "
      "minimum and maximum of the magnitudes");
  verb->add_option("--filter", options->filters,
                   "show only tensors whose name matches, as in \"conv*.weight\" (repeatable)")
      ->type_name("GLOB")
      ->take_all()
      ->expected(1);
  verb->add_flag("--json", options->json, "print one JSON object instead of text");
  verb->footer(
      std::string(kVersionHelp) +
      help_footer(
          "  holdfast show runs/mnist\n  holdfast show runs/mnist 42 --stats --filter \"*.weight\"\n"
          "  holdfast show model.safetensors",
          "  kind (version, file), path, bytes, files[]: name, bytes, digest; problem, passed_over[]: uid, reason;\n"
          "  tensors[]: name, dtype, shape, bytes, tied_to, digest, parts[]: file, begin, end; non_finite (of a "
          "version);\n"
          "             with --stats, stats: elements, min, max, mean, nan (\"Infinity\" and \"NaN\" are strings)\n"
          "  a version: run, uid, number, session, parent, step, epoch, samples, time, reason, world_size, "
          "durability,\n"
          "             non_finite (numbers that are NaN or infinite; null: not counted), metrics, values, made_by, "
          "cost\n"
          "  a file:    metadata\n"
          "  an error:  error: code, message, exit",
          "  0  shown\n  2  wrong command line\n  3  there is no such version or tensor, or it cannot be read"));
  verb->callback([options, &invocation] {
    invocation.json = options->json;
    invocation.run = [options] { return run_show(*options); };
  });
}

}  // namespace holdfast::tools
