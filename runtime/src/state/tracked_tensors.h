// Tracked things that are tensors: modules, tensors, random generators.
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

/// Parameters and buffers, as "name.path"; the value of the name is the flags:
///   {"frozen": ["fc.weight", …], "eval": ["norm", …], "initial": {"frozen": […], "eval": […]}}
/// "initial" is what they were when the run began, where that is something else; "began" the dtypes and shapes then,
/// {"net.fc.weight": "F32 [3, 2]"}, of what a resizable module has in another form now.
/// `variable`: the user's. Where it is the module itself and a shared_ptr held that, its end is found.
std::unique_ptr<TrackedItem> make_tracked_module(std::string name, const void* variable,
                                                 ObjectReference<torch::nn::Module> module);

/// The variable, not the handle it holds now: it may be assigned another one, and be undefined. Its value is the
/// device, or, where the tensor may require a gradient, {"device": "cpu", "requires_grad": true, "initial": false}, the
/// last as it was when the run began.
std::unique_ptr<TrackedItem> make_tracked_tensor(std::string name, at::Tensor& tensor);

std::unique_ptr<TrackedItem> make_tracked_generator(std::string name, at::Generator& generator);

/// The process's own: "generator.cpu" and, for each device, "generator.cuda0", …. A device's state whose device is
/// missing, on either side, is noted and is no misfit.
/// `place` outlives it.
std::unique_ptr<TrackedItem> make_default_generators(const RankPlace& place);

}  // namespace holdfast
