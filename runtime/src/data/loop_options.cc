#include "holdfast/runtime/data/loop_options.h"

#include <fmt/format.h>

#include "holdfast/runtime/error.h"

namespace holdfast {

void LoopCount::refuse(std::int64_t count) {
  throw Error(storage::StatusCode::invalid, fmt::format("the count of a loop is {}: it must be 0 or more", count));
}

}  // namespace holdfast
