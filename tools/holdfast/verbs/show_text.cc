// holdfast show as text: the facts, then a table of tensors.
#include <fmt/format.h>

#include <string_view>

#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verbs/show.h"

namespace holdfast::tools {

using nlohmann::json;

namespace {

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

void print_tensors(const std::vector<ShownTensor>& lines, bool stats) {
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
  for (const ShownTensor& line : lines) {
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

}  // namespace

void show_text(const Shown& shown, bool stats) {
  print_facts(shown.checkpoint);
  for (const storage::PassedOver& passed : shown.passed_over) {
    fact("newer", styled(Style::bad, passed.uid.short_text() + " cannot be loaded: " + printable(passed.reason)));
  }
  print_tensors(shown.tensors, stats);
}

}  // namespace holdfast::tools
