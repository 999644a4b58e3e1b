// A captured state that no longer depends on the tracked objects.
#pragma once

#include "snapshot/snapshot.h"

namespace holdfast {

/// Replaces the capture's references by copies of the bytes, in host memory. Without `all`, omits tensors that are
/// alike on every rank, because rank 0 keeps those. Throws std::bad_alloc.
void copy_bytes(Snapshot& captured, bool all);

}  // namespace holdfast
