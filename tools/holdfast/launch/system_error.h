// The outcome of a system call that failed, as a status.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

#include "holdfast/storage/status.h"

namespace holdfast::tools {

/// "WHAT: Too many open files", from errno.
inline storage::Status system_error(const std::string& what) {
  return {storage::StatusCode::unreadable, what + ": " + std::strerror(errno)};
}

}  // namespace holdfast::tools
