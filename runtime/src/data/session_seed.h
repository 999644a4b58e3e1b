// The seed of the session that lives in this process. Loaders order by it, not by a generator's: on several ranks the
// generators differ and the orders must not.
#pragma once

#include <cstdint>
#include <optional>

namespace holdfast {

std::optional<std::uint64_t> session_seed();
void set_session_seed(std::optional<std::uint64_t> seed);

}  // namespace holdfast
