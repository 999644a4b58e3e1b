// Detects failing training: NaN and infinite numbers that a version has and the version before did not have. They are
// compared tensor by tensor, so that a mask of -inf, which is the same in both, does not count.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "holdfast/storage/formats/manifest.h"
#include "snapshot/snapshot.h"

namespace holdfast {

/// How many numbers of each tensor are NaN or infinite; without the tensors that have none.
using NonFiniteCounts = std::map<std::string, std::uint64_t>;

NonFiniteCounts count_non_finite(const storage::Manifest& manifest);
/// The counts of a version that is not saved yet. Reads every tensor of floating-point numbers.
NonFiniteCounts count_non_finite(const Snapshot& captured);

/// "12 more numbers that are NaN or infinite than version 2-ef01, in 'a', 'b', 'c' and 3 more tensors", where `than` is
/// "version 2-ef01". Empty if no tensor has more.
std::string more_non_finite(const NonFiniteCounts& before, const NonFiniteCounts& now, const std::string& than);

}  // namespace holdfast
