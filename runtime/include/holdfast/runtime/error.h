// Error: the exception that the runtime throws. The storage library reports outcomes as Status. Only throw_if() turns a
// Status into an exception, so a Status that reaches it is not an ordinary outcome.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "holdfast/storage/status.h"

namespace holdfast {

/// A code that programs branch on, and one sentence for people.
class Error : public std::runtime_error {
 public:
  Error(storage::StatusCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  storage::StatusCode code() const { return code_; }

 private:
  storage::StatusCode code_;
};

namespace detail {

/// Throws Error unless the status is ok.
inline void throw_if(const storage::Status& status) {
  if (!status.ok()) throw Error(status.code(), status.message());
}

/// Returns the value, or throws its status.
template <class T>
T value_of(storage::Result<T> result) {
  throw_if(result.status());
  return *std::move(result);
}

}  // namespace detail
}  // namespace holdfast
