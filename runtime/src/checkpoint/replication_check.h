// Whether the state that all ranks must hold alike (parameters, optimizer) is replicated exactly.
#pragma once

#include <string>

#include "holdfast/runtime/ranks/group.h"
#include "snapshot/snapshot.h"

namespace holdfast {

/// Throws Error(invalid) on all ranks, naming tensor and ranks, if a tensor that must be alike on all of them is not.
/// `when`: "before the first step". `site`: in the program.
void require_alike(Group& group, const Snapshot& captured, Group::Site site, const std::string& when,
                   const std::string& remedy);

}  // namespace holdfast
