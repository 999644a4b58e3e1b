// Reports to holdfast launch how far a run is saved, so that it can distinguish a crash loop without progress from
// occasional crashes.
#pragma once

#include <cstdint>

namespace holdfast {

/// Writes the step of the last saved version to the file that HOLDFAST_PROGRESS names, whole or not at all; does
/// nothing if the variable is not set. Ignores a failure: the launcher then sees no progress.
void tell_launcher(std::uint64_t saved_step);

}  // namespace holdfast
