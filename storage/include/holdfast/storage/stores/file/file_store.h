// The `file` driver: a run as a folder on a local disk, a mounted Drive, a Kaggle folder or NFS.
//
// Deviations, found by probe and by the mount's type, never by name: where hard links do not work, entries are
// published by an exclusive rename, and where that does not work either, by O_EXCL in place (`atomic_publish` is then
// false: a torn entry may be seen, and is told by its digest). `durable_put` is false on tmpfs and FUSE, whose fsync
// proves nothing.
#pragma once

#include <memory>

#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

struct FileStoreOptions {
  bool read_only = false;  // for inspection: prepare() and everything that writes answer `read_only`
  bool direct_io = true;   // O_DIRECT for large payload, where the file system has it
};

/// `run_folder` is the run's own folder; its parent must exist when prepare() is called, and the parent's parent when
/// the parent is missing too. `files` must outlive the store.
std::unique_ptr<Store> open_file_store(const Path& run_folder, FileStoreOptions options = {},
                                       FileOperations& files = system_files());

}  // namespace holdfast::storage
