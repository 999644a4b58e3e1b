// A tracked module: its parameters and buffers, which of them are frozen, and which of its modules are in eval mode.
#pragma once

#include <memory>
#include <string>

#include "holdfast/runtime/serialize/object_reference.h"
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
                                                 detail::ObjectReference<torch::nn::Module> module);

}  // namespace holdfast
