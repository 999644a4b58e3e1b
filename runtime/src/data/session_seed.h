// The seed of the session of this process. It determines the order of loaders. A generator's seed would not do, because
// generators differ between ranks and orders must not.
#pragma once

#include <cstdint>
#include <optional>

namespace holdfast {

std::optional<std::uint64_t> session_seed();
void set_session_seed(std::optional<std::uint64_t> seed);

}  // namespace holdfast
