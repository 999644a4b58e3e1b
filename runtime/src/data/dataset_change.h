// Whether the session of this process allows a dataset of another size in the middle of an epoch, which then begins
// again. Read wherever a loader's position is restored: by loops, and by a program that tracks a loader.
#pragma once

namespace holdfast {

bool dataset_change_is_allowed();
void allow_dataset_change(bool allowed);

}  // namespace holdfast
