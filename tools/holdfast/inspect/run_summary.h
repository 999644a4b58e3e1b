// What a list of runs shows of one: only the journal and the latest version's manifest are read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/storage/formats/manifest.h"
#include "inspect/run_folder.h"

namespace holdfast::tools {

struct RunSummary {
  std::string name;
  storage::Path path;
  std::size_t versions = 0;
  std::size_t sessions = 0;
  std::uint64_t bytes = 0;             // on disk
  std::optional<storage::Uid> latest;  // the newest version that can be loaded
  std::string label;                   // of `latest`
  std::optional<storage::Manifest> head;
  std::vector<std::string> passed_over;  // newer versions
  storage::Status status;
};

RunSummary summary_of(const storage::Path& path);

}  // namespace holdfast::tools
