// Whether the session of this process allows that a dataset's size changes in the middle of an epoch, which then begins
// again (--holdfast.allow-dataset-change). Every loader reads it when its position is restored: in loops, and where a
// program tracks a loader.
#pragma once

namespace holdfast {

bool dataset_change_is_allowed();
void allow_dataset_change(bool allowed);

}  // namespace holdfast
