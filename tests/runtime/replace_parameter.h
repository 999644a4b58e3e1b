// Replaces a parameter of an optimizer, as programs do whose parameters grow and shrink while they train.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <utility>

/// Replaces the tensor in a group by `value`, and its moments by the results of `select`, as trainers of point clouds
/// do to add and remove points.
template <class Select>
void replace_parameter(torch::optim::Adam& optimizer, std::size_t group, torch::Tensor& variable,
                       const torch::Tensor& value, const Select& select) {
  auto& held = optimizer.param_groups().at(group).params().at(0);
  const auto found = optimizer.state().find(held.unsafeGetTensorImpl());
  auto state = std::move(found->second);
  optimizer.state().erase(found);
  auto& moments = static_cast<torch::optim::AdamParamState&>(*state);
  moments.exp_avg(select(moments.exp_avg()));
  moments.exp_avg_sq(select(moments.exp_avg_sq()));
  held = variable = value.detach().clone().requires_grad_(true);
  optimizer.state()[variable.unsafeGetTensorImpl()] = std::move(state);
}
