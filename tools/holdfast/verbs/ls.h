// The two lists that holdfast ls prints.
#pragma once

#include "inspect/run_folder.h"

namespace holdfast::tools {

/// The runs in a folder. Returns the exit code.
storage::Result<int> list_runs(const storage::Path& folder, bool json);
/// The versions of a run. Returns the exit code.
storage::Result<int> list_versions(const storage::Path& run, bool json);

}  // namespace holdfast::tools
