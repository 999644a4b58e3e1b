// Makes the folders of a run. Private to the file driver.
#pragma once

#include "holdfast/storage/status.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast::storage {

/// Makes the missing ones of the folder of runs, the run's folder `root` and the folders in it. Sets `made_home` if the
/// folder of runs was missing. Refuses a path that is more likely a mistake than a new run.
Status make_run_folders(FileOperations& files, const Path& root, bool& made_home);

}  // namespace holdfast::storage
