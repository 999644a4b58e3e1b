// A tracked optimizer: its state by the parameters' names, and the options of its groups.
//
// Value, as JSON:
//   {"kind": "AdamW",
//    "groups": [{"parameters": ["net.fc.weight", …],
//                "initial": {"lr": 0.01, …},     as the code gave them when the run started
//                "initial_of": {"net.fc.bias": {"lr": 0.02, …}},   for a parameter that was then in another group
//                "current": {"lr": 0.005, …}}],
//    "began": [["net.fc.weight", …], …],         the groups as the code gave them, if they differ now
//    "state_of_others": {"step": 3},             what is not a tensor in the state of all parameters that "state"
//                                                does not list
//    "state": {"net.fc.bias": {"step": 1}, …}}   where it differs; null for a parameter without state. Without
//                                                "state_of_others" it lists every parameter that has state.
// Tensor fields are stored as "<name>.state.<parameter>.<field>", list fields with ".0", ".1", … and, in the value,
// which of them are defined. "<field>.strides" in the value keeps the memory order of a tensor that is not row-major.
#pragma once

#include <memory>
#include <string>

#include "state/tracked_item.h"

namespace torch::optim {
class Optimizer;
}

namespace holdfast {

/// Throws Error (unsupported) for a class that is neither LibTorch's own nor in fused_optimizers.h. capture() and
/// plan() throw it, too, for the optimizer that the variable then holds.
std::unique_ptr<TrackedItem> make_tracked_optimizer(std::string name,
                                                    detail::ObjectReference<torch::optim::Optimizer> optimizer);

}  // namespace holdfast
