// torch::optim's learning-rate schedulers. LibTorch gives them no way to save: their counters are reached here, and the
// rates they have set are part of the optimizer's options.
#pragma once

#include <memory>
#include <string>

#include "state/tracked_item.h"

namespace torch::optim {
class LRScheduler;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace holdfast {

// What a constructor was given is saved beside the rest, as "constants", where it can be read: it stays the code's, and
// a difference is noted.

/// The step count: all that a rate which is a function of the step needs.
std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name,
                                                    ObjectReference<torch::optim::LRScheduler> scheduler);

/// The best metric and the three counters.
std::unique_ptr<TrackedItem> make_tracked_scheduler(
    std::string name, ObjectReference<torch::optim::ReduceLROnPlateauScheduler> scheduler);

}  // namespace holdfast
