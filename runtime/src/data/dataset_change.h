// Whether the session that lives in this process permits a dataset of another size in the middle of an epoch, which
// then begins again. Asked wherever a loader's position is restored: by loops, and where a program tracks a loader.
#pragma once

namespace holdfast {

bool dataset_change_is_allowed();
void allow_dataset_change(bool allowed);

}  // namespace holdfast
