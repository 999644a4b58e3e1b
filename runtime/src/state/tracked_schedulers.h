// torch::optim's learning-rate schedulers. LibTorch cannot save them: their counters are accessed here, and the rates
// that they have set are part of the optimizer's options.
#pragma once

#include <memory>
#include <string>

#include "state/tracked_item.h"

namespace torch::optim {
class LRScheduler;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace holdfast {

// A scheduler's constructor arguments are also saved, as "constants", if they can be read. They are not restored: the
// code's stay, and a difference is noted.

/// Saves the step count, which is all that a rate as a function of the step needs.
std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name,
                                                    detail::ObjectReference<torch::optim::LRScheduler> scheduler);

/// Saves the best metric and the three counters.
std::unique_ptr<TrackedItem> make_tracked_scheduler(
    std::string name, detail::ObjectReference<torch::optim::ReduceLROnPlateauScheduler> scheduler);

}  // namespace holdfast
