// Error: what the runtime throws. The storage library reports outcomes as Status; throw_if() is the one place where an
// outcome becomes an exception, so a Status that reached it was not ordinary any more.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "holdfast/storage/status.h"

namespace holdfast {

/// What happened, as a code that programs branch on and one sentence for a human.
class Error : public std::runtime_error {
 public:
  Error(storage::StatusCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  storage::StatusCode code() const { return code_; }

 private:
  storage::StatusCode code_;
};

/// Throws Error unless the status is ok.
inline void throw_if(const storage::Status& status) {
  if (!status.ok()) throw Error(status.code(), status.message());
}

/// The value, or its status thrown.
template <class T>
T value_of(storage::Result<T> result) {
  throw_if(result.status());
  return *std::move(result);
}

}  // namespace holdfast
