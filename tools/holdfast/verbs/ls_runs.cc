// The runs in a folder, as text and as JSON.
#include <fmt/format.h>

#include <algorithm>

#include "inspect/run_summary.h"
#include "terminal/phrases.h"
#include "terminal/terminal.h"
#include "verb.h"
#include "verbs/ls.h"

namespace holdfast::tools {

using nlohmann::ordered_json;
using storage::Path;
using storage::Result;
using storage::StatusCode;

namespace {

ordered_json to_json(const Path& folder, const std::vector<RunSummary>& lines) {
  ordered_json json = {{"path", folder.string()}, {"runs", ordered_json::array()}};
  for (const RunSummary& line : lines) {
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
  return json;
}

std::string table_text(const std::vector<RunSummary>& lines) {
  Table table;
  table.column("run", Table::Align::left);
  for (const char* heading : {"versions", "latest", "step", "age", "size"}) table.column(heading, Table::Align::right);
  table.column("", Table::Align::left);
  for (const RunSummary& line : lines) {
    const std::string name = styled(Style::bold, printable(line.name));
    const std::string problem =
        styled(Style::bad, line.status.ok() ? fmt::format("{}", fmt::join(line.passed_over, ", "))
                                            : printable(line.status.message()));
    table.row({name, format_count(line.versions), line.latest ? line.label : "-",
               line.head ? format_count(line.head->position.step) : "-", line.head ? age_text(line.head->time) : "-",
               format_bytes(line.bytes), problem});
  }
  return table.text();
}

}  // namespace

Result<int> list_runs(const Path& folder, bool json) {
  const auto paths = runs_in(folder);
  if (!paths) return paths.status();
  std::vector<RunSummary> lines;
  for (const Path& path : *paths) lines.push_back(summary_of(path));
  if (json) {
    print_json(to_json(folder, lines));
  } else {
    print(table_text(lines));
  }
  const bool all_read = std::all_of(lines.begin(), lines.end(), [](const RunSummary& line) {
    return line.status.code() != StatusCode::permission_denied && line.status.code() != StatusCode::unreadable;
  });
  return all_read ? kOk : kUnreadable;
}

}  // namespace holdfast::tools
