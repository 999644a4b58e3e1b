// Tensors that a program may grow and shrink while it trains: `session.track("means", means, holdfast::resizable)`.
//
// On resume such a tensor, or each parameter and buffer of such a module, takes the saved shape and dtype in place: the
// variable, the module's members and an optimizer's param_groups stay one tensor, with the saved optimizer state.
// Without `resizable`, a parameter of another shape is incompatible, and a save refuses a parameter whose shape is not
// the one that the run began with.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <type_traits>

#include "holdfast/runtime/serialize/object_reference.h"

namespace torch::nn {
class Module;
}

namespace holdfast {

struct Resizable {
  explicit Resizable() = default;
};
inline constexpr Resizable resizable{};

namespace detail {

/// A tensor, or a module itself, its holder, or a pointer to it.
template <class T>
concept HasTensorsToResize =
    std::same_as<T, at::Tensor> || std::derived_from<T, torch::nn::Module> || PointsTo<T, torch::nn::Module>;

}  // namespace detail
}  // namespace holdfast
