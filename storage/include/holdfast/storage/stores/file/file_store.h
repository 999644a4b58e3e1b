// The `file` driver: a run as a folder on a local disk, a mounted Drive, a Kaggle folder or NFS.
//
// Deviations, found by probe and by the mount's type, never by name: if hard links do not work, entries are published
// by an exclusive rename; if that does not work either, by O_EXCL in place (`atomic_publish` is then false: readers
// may see a torn entry, and recognize it by its digest). `durable_put` is false on tmpfs and FUSE, whose fsync
// guarantees nothing.
#pragma once

#include <memory>

#include "holdfast/storage/step_runner.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/stores/store.h"

namespace holdfast::storage {

struct FileStoreOptions {
  bool read_only = false;  // for inspection: prepare() and all calls that write return `read_only`
  bool direct_io = true;   // O_DIRECT for large payload, if the file system supports it
};

/// `run_folder` is the run's own folder; when prepare() is called, its parent or at least its parent's parent must
/// exist. `files` and `steps`, which performs prepare(), must outlive the store.
std::unique_ptr<Store> open_file_store(const Path& run_folder, FileStoreOptions options = {},
                                       FileOperations& files = system_files(), StepRunner& steps = steps_in_order());

}  // namespace holdfast::storage
