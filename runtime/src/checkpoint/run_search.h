// Finds a run's folders in the output of earlier sessions, such as Kaggle's /kaggle/input/NOTEBOOK/holdfast/RUN.
#pragma once

#include <string>
#include <vector>

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast {

/// How deep below a root a run's folder may lie: root/1/2/3/4/RUN.
inline constexpr int kSearchDepth = 5;
/// At most so many folders are looked at below one root, the nearest ones, so that a large dataset does not delay the
/// start.
inline constexpr int kSearchFolders = 100'000;

struct RunSearch {
  std::vector<storage::Path> found;  // nearest first
  storage::Status complete;          // else the first folder that could not be read
};

/// The folders called `run` that hold a journal. Roots that do not exist are skipped. Symbolic links are followed, but
/// no folder is entered twice.
RunSearch find_runs(const std::vector<std::string>& roots, const std::string& run);

}  // namespace holdfast
