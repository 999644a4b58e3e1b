// The state of all ranks in one version: rank 0's capture represents all ranks; another rank's differing state
// (generators, buffers, values) is sent to it and saved under a name with that rank (rank_names.h).
#pragma once

#include "holdfast/runtime/ranks/group.h"
#include "snapshot/snapshot.h"

namespace holdfast {

/// Adds the other ranks' differing state to rank 0's capture. The others' captures stay as they are.
/// All ranks call it together.
void gather_rank_state(Group& group, Snapshot& captured, Group::Site site);

}  // namespace holdfast
