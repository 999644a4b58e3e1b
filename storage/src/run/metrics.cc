#include "holdfast/storage/run/metrics.h"

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>

#include "formats/strict_json.h"

namespace holdfast::storage {
namespace {

using nlohmann::json;
using Steps = std::map<std::uint64_t, json>;

/// One session's records; the records of one step are merged, and later keys win.
Steps parse_lines(std::string_view text) {
  Steps steps;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // a line without a line feed is torn
    const auto record = parse_strict_json(text.substr(0, end), kMaxEntryDepth, "the line");
    text.remove_prefix(end + 1);
    if (!record) continue;
    const auto step = record->find("step");
    if (step == record->end() || !step->is_number_unsigned()) continue;
    auto [place, is_new] = steps.try_emplace(step->get<std::uint64_t>(), *record);
    if (!is_new) place->second.update(*record);
  }
  return steps;
}

}  // namespace

Result<std::vector<json>> read_metrics(const Store& store, const History& history) {
  Steps steps;
  for (const OpenEntry& open : history.opens()) {
    // Lines are appended for as long as the run trains, so the length is not limited.
    const auto text = store.get(metrics_name(open.uid), std::numeric_limits<std::uint64_t>::max());
    if (!text && text.code() == StatusCode::not_found) continue;
    if (!text) return text.status();
    for (auto& [step, record] : parse_lines(*text)) steps[step] = std::move(record);
  }
  std::vector<json> records;
  records.reserve(steps.size());
  for (auto& [step, record] : steps) records.push_back(std::move(record));
  return records;
}

}  // namespace holdfast::storage
