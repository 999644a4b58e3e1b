// Tracked items that are tensors: modules, tensors, random generators.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "holdfast/runtime/serialize/object_reference.h"
#include "state/rank_names.h"
#include "state/tracked_item.h"

namespace torch::nn {
class Module;
}

namespace holdfast {

/// Parameters and buffers, as "name.path"; the value under the name is the flags:
///   {"frozen": ["fc.weight", …], "eval": ["norm", …], "initial": {"frozen": […], "eval": […]}}
/// "initial" holds the flags at the beginning of the run if they differ. "began" holds the dtypes and shapes at the
/// beginning, {"net.fc.weight": "F32 [3, 2]"}, of tensors of a resizable module that have another form now.
/// `variable`: the user's. If it is the module itself and a shared_ptr held that, the end of the module is detected.
std::unique_ptr<TrackedItem> make_tracked_module(std::string name, const void* variable,
                                                 ObjectReference<torch::nn::Module> module);

/// Tracks the variable, not the handle that it holds now: it may be assigned another one, and be undefined. Its value
/// is the device, or, if the tensor may require a gradient, {"device": "cpu", "requires_grad": true, "initial": false},
/// where "initial" is the flag when the run began.
std::unique_ptr<TrackedItem> make_tracked_tensor(std::string name, at::Tensor& tensor);

std::unique_ptr<TrackedItem> make_tracked_generator(std::string name, at::Generator& generator);

/// The process's own generators: "generator.cpu" and, for each device, "generator.cuda0", …. If a device is missing on
/// either side, its state is noted and the checkpoint stays compatible. `place` must outlive the item.
std::unique_ptr<TrackedItem> make_default_generators(const RankPlace& place);

}  // namespace holdfast
