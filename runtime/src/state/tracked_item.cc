#include "state/tracked_item.h"

#include "holdfast/runtime/error.h"

namespace holdfast {

void throw_null(const char* kind, const std::string& name) {
  throw Error(
      storage::StatusCode::invalid,
      std::string(kind) + " '" + name + "' is null: make it before it is tracked, saved or restored, or untrack it");
}

}  // namespace holdfast
