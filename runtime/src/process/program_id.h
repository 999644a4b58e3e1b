// Identifies the build of the program, so that the crashes of one build do not count against a version in another.
#pragma once

#include <string>

namespace holdfast {

/// The digest of this process's executable file, 32 hex digits; empty if it cannot be read.
std::string program_id();

}  // namespace holdfast
