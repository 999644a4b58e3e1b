#include "checkpoint/store_files.h"

namespace holdfast {
namespace {

storage::FileOperations* chosen = nullptr;
storage::StepRunner* chosen_steps = nullptr;

}  // namespace

storage::FileOperations& store_files() { return chosen != nullptr ? *chosen : storage::system_files(); }

void set_store_files(storage::FileOperations* files) { chosen = files; }

storage::StepRunner& store_steps() { return chosen_steps != nullptr ? *chosen_steps : storage::steps_in_order(); }

void set_store_steps(storage::StepRunner* steps) { chosen_steps = steps; }

}  // namespace holdfast
