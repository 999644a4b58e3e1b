#include "inspect/run_summary.h"

#include "holdfast/storage/stores/file/file_store.h"
#include "inspect/checkpoint.h"

namespace holdfast::tools {

using storage::Path;
using storage::StatusCode;

RunSummary summary_of(const Path& path) {
  RunSummary summary;
  summary.path = path;
  summary.name = name_of(path);
  const auto run = open_run(path);
  if (!run) {
    summary.bytes = bytes_on_disk(*storage::open_file_store(path, {.read_only = true, .direct_io = false}));
    summary.status = run.status();
    return summary;
  }
  summary.bytes = bytes_on_disk(*(*run)->store);
  summary.versions = (*run)->history.versions().size();
  summary.sessions = (*run)->history.opens().size();
  if (summary.versions == 0) {
    const auto choice = choose(**run, {});
    if (!choice) summary.status = choice.status();
    return summary;
  }
  const auto target = find_target(path.string(), "", /*loadable=*/true);
  if (!target) {
    if (target.code() != StatusCode::not_found) summary.status = target.status();
    return summary;
  }
  const auto checkpoint = open_version_head(**run, target->uid);
  if (!checkpoint) {
    summary.status = checkpoint.status();
    return summary;
  }
  summary.latest = target->uid;
  summary.label = label_of(**run, target->uid);
  summary.head = checkpoint->manifest;
  for (const storage::PassedOver& passed : target->passed_over) {
    summary.passed_over.push_back(passed.uid.short_text() + " cannot be loaded");
  }
  return summary;
}

}  // namespace holdfast::tools
