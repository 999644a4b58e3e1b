// torch::optim's learning-rate schedulers. LibTorch gives them no way to save: their counters are reached here, and the
// rates they have set are part of the optimizer's options.
#pragma once

#include <memory>
#include <string>

#include "tracked_item.h"

namespace torch::optim {
class LRScheduler;
class ReduceLROnPlateauScheduler;
}  // namespace torch::optim

namespace holdfast {

/// The step count: all that a rate which is a function of the step needs.
std::unique_ptr<TrackedItem> make_tracked_scheduler(std::string name,
                                                    ObjectReference<torch::optim::LRScheduler> scheduler);

/// The best metric and the three counters; what its constructor was given stays the code's.
std::unique_ptr<TrackedItem> make_tracked_scheduler(
    std::string name, ObjectReference<torch::optim::ReduceLROnPlateauScheduler> scheduler);

}  // namespace holdfast
