// holdfast show: the contents of one version or one safetensors file.
#include <fmt/format.h>
#include <fnmatch.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "holdfast/storage/formats/ranks_of_run.h"
#include "holdfast/storage/text/nearest_name.h"
#include "inspect/checkpoint.h"
#include "inspect/tensor_stats.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"

namespace holdfast::tools {

using nlohmann::json;
using nlohmann::ordered_json;
using storage::meant_name;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using storage::TensorEntry;

namespace {

struct Options {
  std::string version;
  std::string number;
  std::vector<std::string> filters;
  bool stats = false;
  bool json = false;
};

/// One line of the listing; a tied name has no bytes of its own.
struct Line {
  std::string name;
  const TensorEntry* tensor = nullptr;
  std::string tied_to;
  std::optional<TensorStats> stats;
};

bool matches(const std::string& name, const std::vector<std::string>& filters) {
  return filters.empty() || std::any_of(filters.begin(), filters.end(), [&](const std::string& filter) {
           return ::fnmatch(filter.c_str(), name.c_str(), 0) == 0;
         });
}

Result<std::vector<Line>> select(const Checkpoint& checkpoint, const Options& options) {
  const std::vector<std::string> names = checkpoint.tensor_names();
  std::vector<Line> lines;
  for (const std::string& name : names) {
    if (!matches(name, options.filters)) continue;
    Line line{name, checkpoint.manifest.find(name), "", std::nullopt};
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

ordered_json to_json(const Checkpoint& checkpoint, const Line& line) {
  const TensorEntry& tensor = *line.tensor;
  ordered_json json = {{"name", line.name},
                       {"dtype", to_string(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes()},
                       {"tied_to", line.tied_to.empty() ? ordered_json() : ordered_json(line.tied_to)},
                       {"digest", checkpoint.is_version ? ordered_json(tensor.digest.hex()) : ordered_json()},
                       {"parts", ordered_json::array()}};
  if (checkpoint.is_version) json["non_finite"] = tensor.non_finite;
  for (const storage::TensorPart& part : tensor.parts) {
    json["parts"].push_back(
        {{"file", checkpoint.manifest.files[part.file].name}, {"begin", part.begin}, {"end", part.end}});
  }
  if (line.stats) {
    const auto or_null = [](const std::optional<Number>& number) {
      return number ? json_number(*number) : ordered_json();
    };
    json["stats"] = {{"elements", line.stats->elements},
                     {"min", or_null(line.stats->min)},
                     {"max", or_null(line.stats->max)},
                     {"mean", or_null(line.stats->mean)},
                     {"nan", line.stats->nan}};
  }
  return json;
}

int ranks_of(const storage::Manifest& manifest) {
  return storage::ranks_of_run(manifest).value_or(manifest.world_size);
}

ordered_json to_json(const Checkpoint& checkpoint) {
  const storage::Manifest& manifest = checkpoint.manifest;
  ordered_json json = {{"kind", checkpoint.is_version ? "version" : "file"}, {"path", checkpoint.path.string()}};
  if (checkpoint.is_version) {
    json.update({{"run", manifest.run},
                 {"uid", manifest.uid.text()},
                 {"number", manifest.uid.seq},
                 {"session", manifest.uid.session},
                 {"parent", manifest.parent ? ordered_json(manifest.parent->text()) : ordered_json()},
                 {"step", manifest.position.step},
                 {"epoch", manifest.position.epoch},
                 {"samples", manifest.position.samples},
                 {"time", manifest.time},
                 {"reason", manifest.reason},
                 {"world_size", ranks_of(manifest)},
                 {"durability", manifest.durability},
                 {"non_finite", manifest.non_finite ? ordered_json(*manifest.non_finite) : ordered_json()},
                 {"metrics", ordered_json(manifest.metrics)},
                 {"values", ordered_json(manifest.values)},
                 {"made_by", ordered_json(manifest.made_by)},
                 {"cost", ordered_json(manifest.cost)}});
  } else {
    json["metadata"] = checkpoint.metadata;
  }
  json["bytes"] = manifest.payload_bytes();
  json["files"] = ordered_json::array();
  for (const storage::FileEntry& file : manifest.files) {
    json["files"].push_back({{"name", file.name},
                             {"bytes", file.bytes},
                             {"digest", checkpoint.is_version ? ordered_json(file.digest.hex()) : ordered_json()}});
  }
  json["problem"] = checkpoint.damage.ok() ? ordered_json() : ordered_json(checkpoint.damage.message());
  return json;
}

void fact(std::string_view name, const std::string& text) {
  if (!text.empty()) print(fmt::format("  {}{}\n", styled(Style::dim, fmt::format("{:<12}", name)), text));
}

/// Prints one member a line. Long ones are cut because a generator's state would fill several screens.
void facts(std::string_view name, const json& object) {
  constexpr std::size_t kShown = 88;
  if (!object.is_object() || object.empty()) return;
  bool first = true;
  for (const auto& [key, value] : object.items()) {
    std::string text = printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
    if (text.size() > kShown) {
      std::size_t cut = kShown - 24;
      while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
      text = fmt::format("{}… ({} characters)", text.substr(0, cut), format_count(text.size()));
    }
    fact(first ? name : "", printable(key) + " " + text);
    first = false;
  }
}

void print_facts(const Checkpoint& checkpoint) {
  const storage::Manifest& manifest = checkpoint.manifest;
  print(styled(Style::bold, checkpoint.title) + "\n");
  if (checkpoint.is_version) {
    const auto then = parse_time(manifest.time);
    const std::string age = then ? " (" + format_age(now() - *then) + (now() - *then < 1 ? ")" : " ago)") : "";
    fact("position", fmt::format("step {}, epoch {}, {}", format_count(manifest.position.step),
                                 format_count(manifest.position.epoch), plural(manifest.position.samples, "sample")));
    fact("saved", printable(manifest.time) + age + (manifest.reason.empty() ? "" : ", " + printable(manifest.reason)));
    fact("by", fmt::format("session {}, {}", manifest.uid.session,
                           plural(static_cast<std::uint64_t>(ranks_of(manifest)), "rank")));
    fact("continues", manifest.parent ? manifest.parent->short_text() : "nothing: started from scratch");
    fact("durability", printable(manifest.durability));
    if (manifest.non_finite.value_or(0) > 0) {
      fact("not finite", styled(Style::bad, plural(*manifest.non_finite, "number") + " NaN or infinite"));
    }
  }
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    fact(i == 0 ? "files" : "", printable(manifest.files[i].name) + ", " + format_bytes(manifest.files[i].bytes));
  }
  facts("metrics", manifest.metrics);
  facts("values", manifest.values);
  facts("made by", manifest.made_by);
  if (!checkpoint.is_version) facts("metadata", json(checkpoint.metadata));
  if (!checkpoint.damage.ok()) {
    fact("damage", styled(Style::bad, fmt::format("{}: {}", to_string(checkpoint.damage.code()),
                                                  printable(checkpoint.damage.message()))));
  }
}

std::string cell(const std::optional<Number>& number) { return number ? format_number(*number) : "-"; }

void print_tensors(const std::vector<Line>& lines, bool stats) {
  if (lines.empty()) return print("\nno tensors\n");
  Table table;
  table.column("tensor", Table::Align::left);
  table.column("dtype", Table::Align::left);
  table.column("shape", Table::Align::left);
  table.column("bytes", Table::Align::right);
  if (stats) {
    for (const char* heading : {"min", "max", "mean", "NaN"}) table.column(heading, Table::Align::right);
  }
  table.column("", Table::Align::left);
  std::uint64_t bytes = 0;
  for (const Line& line : lines) {
    const bool tied = !line.tied_to.empty();
    if (!tied) bytes += line.tensor->bytes();
    std::vector<std::string> cells = {printable(line.name), std::string(to_string(line.tensor->dtype)),
                                      format_shape(line.tensor->shape),
                                      tied ? "-" : format_count(line.tensor->bytes())};
    if (line.stats) {
      const std::string nan = format_count(line.stats->nan);
      for (const auto& number : {line.stats->min, line.stats->max, line.stats->mean}) cells.push_back(cell(number));
      cells.push_back(line.stats->nan > 0 ? styled(Style::bad, nan) : nan);
    }
    std::string remark = tied ? styled(Style::dim, "tied to " + printable(line.tied_to)) : "";
    if (!tied && line.tensor->non_finite > 0) {
      remark = styled(Style::bad, format_count(line.tensor->non_finite) + " NaN or infinite");
    }
    cells.push_back(std::move(remark));
    table.row(std::move(cells));
  }
  print("\n" + table.text());
  print(fmt::format("{}, {}\n", plural(lines.size(), "tensor"), format_bytes(bytes)));
}

Result<int> run_show(const Options& options) {
  const auto target = find_target(options.version, options.number, /*loadable=*/true);
  if (!target) return target.status();
  const auto checkpoint = open_checkpoint(*target);
  if (!checkpoint) return checkpoint.status();
  auto lines = select(*checkpoint, options);
  if (!lines) return lines.status();

  if (options.stats) {
    Progress progress("reading");
    std::uint64_t done = 0, total = 0;
    for (const Line& line : *lines) total += line.tensor->bytes();
    for (Line& line : *lines) {
      auto stats =
          stats_of(*checkpoint, *line.tensor, [&](std::uint64_t bytes) { progress.update(done += bytes, total); });
      if (!stats) return stats.status();
      line.stats = *stats;
    }
  }

  if (options.json) {
    ordered_json json = to_json(*checkpoint);
    json["passed_over"] = ordered_json::array();
    for (const storage::PassedOver& passed : target->passed_over) {
      json["passed_over"].push_back({{"uid", passed.uid.text()}, {"reason", passed.reason}});
    }
    json["tensors"] = ordered_json::array();
    for (const Line& line : *lines) json["tensors"].push_back(to_json(*checkpoint, line));
    print_json(json);
    return kOk;
  }
  print_facts(*checkpoint);
  for (const storage::PassedOver& passed : target->passed_over) {
    fact("newer", styled(Style::bad, passed.uid.short_text() + " cannot be loaded: " + printable(passed.reason)));
  }
  print_tensors(*lines, options.stats);
  return kOk;
}

}  // namespace

void add_show(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<Options>();
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
