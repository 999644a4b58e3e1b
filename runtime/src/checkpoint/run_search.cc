#include "checkpoint/run_search.h"

#include <algorithm>
#include <boost/filesystem/directory.hpp>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <set>

namespace holdfast {
namespace {

namespace fs = boost::filesystem;

bool is_run(const fs::path& folder) {
  boost::system::error_code error;
  return fs::is_directory(folder / "journal", error);
}

std::vector<fs::path> folders_in(const fs::path& folder, storage::Status& complete) {
  std::vector<fs::path> folders;
  boost::system::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    boost::system::error_code unknown;
    if (fs::is_directory(entry->status(unknown))) folders.push_back(entry->path());
  }
  // Folders of other users are skipped.
  if (error && error.value() != EACCES && error.value() != ENOENT && complete.ok()) {
    complete = {storage::StatusCode::unreadable, folder.string() + " could not be searched: " + error.message()};
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace

// Level by level, so that a large folder deep down does not hide a run near the root.
RunSearch find_runs(const std::vector<std::string>& roots, const std::string& run) {
  RunSearch search;
  for (const std::string& root : roots) {
    std::vector<fs::path> level{root};
    std::set<fs::path> seen;
    int folders = 0;
    for (int depth = 0; depth < kSearchDepth && !level.empty(); ++depth) {
      std::vector<fs::path> next;
      for (const fs::path& folder : level) {
        boost::system::error_code error;
        if (!seen.insert(fs::canonical(folder, error)).second || error || ++folders > kSearchFolders) continue;
        if (is_run(folder / run)) search.found.push_back(folder / run);
        if (is_run(folder)) continue;  // a run has no other runs inside
        const auto inside = folders_in(folder, search.complete);
        next.insert(next.end(), inside.begin(), inside.end());
      }
      level = std::move(next);
    }
  }
  return search;
}

}  // namespace holdfast
