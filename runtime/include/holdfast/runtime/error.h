// The exception of everything above the storage room, and the one place where a Status becomes one.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "holdfast/storage/status.h"

namespace holdfast {

/// One sentence that names the thing and the remedy, with storage's code for callers that branch on it.
class Error : public std::runtime_error {
 public:
  Error(storage::StatusCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  storage::StatusCode code() const noexcept { return code_; }

 private:
  storage::StatusCode code_;
};

inline void throw_if(const storage::Status& status) {
  if (!status.ok()) throw Error(status.code(), status.message());
}

}  // namespace holdfast
