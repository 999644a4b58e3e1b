#include "checkpoint/store_files.h"

namespace holdfast {
namespace {

storage::FileOperations* chosen = nullptr;

}  // namespace

storage::FileOperations& store_files() { return chosen != nullptr ? *chosen : storage::system_files(); }

void set_store_files(storage::FileOperations* files) { chosen = files; }

}  // namespace holdfast
