// What holdfast launch asks of a run: how far it is saved, so that a crash loop without progress can be told from bad
// luck.
#pragma once

#include <cstdint>

namespace holdfast {

/// Writes the step of the last saved version to the file that HOLDFAST_PROGRESS names, whole or not at all; does
/// nothing where nobody asked. A failure is nobody's concern: the launcher then sees no progress.
void tell_launcher(std::uint64_t saved_step);

}  // namespace holdfast
