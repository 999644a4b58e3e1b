#include "holdfast/storage/text/plural.h"

#include "holdfast/storage/text/units.h"

namespace holdfast::storage {

std::string plural(std::uint64_t count, std::string_view noun) {
  return format_count(count).append(" ").append(noun).append(count == 1 ? "" : "s");
}

}  // namespace holdfast::storage
