// The seed of the session of this process: the default seed of loaders' orders. The seed of LibTorch's generator is not
// used in a session, because generators differ between ranks and orders must not.
#pragma once

#include <cstdint>
#include <optional>

namespace holdfast {

std::optional<std::uint64_t> session_seed();
void set_session_seed(std::optional<std::uint64_t> seed);

}  // namespace holdfast
