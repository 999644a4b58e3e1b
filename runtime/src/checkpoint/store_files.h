// The file operations of a session's store, and the runner of its protocols' steps: the system's and in order,
// unless a test set others before the run was opened.
#pragma once

#include "holdfast/storage/step_runner.h"
#include "holdfast/storage/stores/file/file_operations.h"

namespace holdfast {

storage::FileOperations& store_files();
/// Null: the system's. Must not be called while a session lives.
void set_store_files(storage::FileOperations* files);

storage::StepRunner& store_steps();
/// Null: in order. Must not be called while a session lives.
void set_store_steps(storage::StepRunner* steps);

}  // namespace holdfast
