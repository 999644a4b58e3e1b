// Which build of the program this is, so that the deaths of one are not held against a version when another runs.
#pragma once

#include <string>

namespace holdfast {

/// The digest of this process's executable file, 32 hex digits; empty where it cannot be read.
std::string program_id();

}  // namespace holdfast
