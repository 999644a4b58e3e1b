// The file operations of a session's store: the system's, unless a test set others before the run was opened.
#pragma once

#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast {

storage::FileOperations& store_files();
/// Null: the system's. Must not be called while a session lives.
void set_store_files(storage::FileOperations* files);

}  // namespace holdfast
