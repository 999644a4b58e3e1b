// The lock that keeps two processes of one host from writing one run. Private to the file driver.
#pragma once

#include <memory>
#include <string_view>

#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

/// As Store::lock(), in the files of `hints`.
Result<std::unique_ptr<HostLock>> lock_run(FileOperations& files, const Path& hints, std::string_view holder);

}  // namespace holdfast::storage
