#include "data/dataset_change.h"

#include <atomic>

namespace holdfast {
namespace {

std::atomic<bool> is_allowed{false};

}  // namespace

bool dataset_change_is_allowed() { return is_allowed; }
void allow_dataset_change(bool allowed) { is_allowed = allowed; }

}  // namespace holdfast
