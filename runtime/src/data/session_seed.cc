#include "data/session_seed.h"

namespace holdfast {
namespace {

std::optional<std::uint64_t>& seed_of_session() {
  static std::optional<std::uint64_t> seed;
  return seed;
}

}  // namespace

std::optional<std::uint64_t> session_seed() { return seed_of_session(); }
void set_session_seed(std::optional<std::uint64_t> seed) { seed_of_session() = seed; }

}  // namespace holdfast
