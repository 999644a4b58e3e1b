// What a list of a run's versions shows, gathered without reading tensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "inspect/run_folder.h"
#include "inspect/verified_hint.h"

namespace holdfast::tools {

/// What a listing keeps of a version. Manifests themselves are released because a journal may hold thousands.
struct VersionRow {
  storage::Uid uid;
  std::optional<storage::Manifest> head;  // without files, tensors and values; empty if it cannot be read
  std::uint64_t bytes = 0;
  std::size_t tensors = 0;
  storage::Status status;  // of the manifest and of its files' lengths
  std::optional<Verified> verified;
  bool dropping = false;     // its removal has started
  bool left_behind = false;  // not on the line that the next start continues
  std::vector<std::string> notes;
};

/// Every version of the run, oldest first, read on several threads.
std::vector<VersionRow> version_rows(const RunFolder& run);

/// What the next start will find when it tries each version.
std::map<storage::Uid, storage::Status> known_failures(const std::vector<VersionRow>& rows);

/// Sets `left_behind`, if the next start resumes from `next`.
void mark_left_behind(const RunFolder& run, const storage::Uid& next, std::vector<VersionRow>& rows);

/// The versions that were removed, according to the journal, by number.
std::vector<storage::Uid> dropped_versions(const RunFolder& run, const std::vector<VersionRow>& rows);

}  // namespace holdfast::tools
