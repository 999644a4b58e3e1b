// A captured state that no longer depends on what is tracked.
#pragma once

#include "state/snapshot.h"

namespace holdfast {

/// Replaces what the capture refers to by copies of the bytes, in host memory. Without `all`, tensors that are alike on
/// every rank are left out: rank 0 keeps those. Throws std::bad_alloc.
void copy_bytes(Snapshot& captured, bool all);

}  // namespace holdfast
