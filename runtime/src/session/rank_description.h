// The description of one rank, for debugging a distributed program.
#pragma once

#include <string>

#include "holdfast/runtime/ranks/group.h"

namespace holdfast {

/// A block of lines: rank and place, process, device with its memory and load, host memory, threads, precision,
/// versions. `precision`: of the pipelines; `version`: of Holdfast.
std::string describe_rank(const Group& group, const std::string& precision, const std::string& version);

}  // namespace holdfast
