#include "state/tracked_item.h"

#include "holdfast/runtime/error.h"

namespace holdfast {

void throw_null(const char* kind, const std::string& name) {
  throw Error(
      storage::StatusCode::invalid,
      std::string(kind) + " '" + name + "' is null: make it before it is tracked, saved or restored, or untrack it");
}

void throw_changed_form(const std::string& name, const std::string& change) {
  throw Error(storage::StatusCode::invalid,
              "'" + name + "' has changed since the run began: " + change +
                  ". A program that begins as this one did could not resume from such a version. Make the change "
                  "before the loop begins, or, if the program changes it while it trains, write " +
                  track_as_resizable(name));
}

}  // namespace holdfast
