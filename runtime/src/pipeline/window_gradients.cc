#include "pipeline/window_gradients.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <utility>

namespace holdfast {
namespace {

// A sparse embedding's gradient is saved as rows and their indices, in their order, because the sum at the window's end
// depends on it.
void put_gradient(State& state, const std::string& parameter, const at::Tensor& gradient) {
  const std::string name = "gradient." + parameter;
  if (gradient.layout() != at::kSparse) {
    state.put(name, gradient);
    return;
  }
  state.put(name + ".indices", gradient._indices()).put(name + ".values", gradient._values());
  state.put(name + ".coalesced", gradient.is_coalesced());
}

// Undefined if none was saved.
at::Tensor get_gradient(const State& state, const NamedParameter& parameter) {
  const std::string name = "gradient." + parameter.name;
  if (!state.has(name)) return {};
  if (state.has(name + ".indices")) {
    return at::_sparse_coo_tensor_unsafe(state.get<at::Tensor>(name + ".indices"),
                                         state.get<at::Tensor>(name + ".values"), parameter.tensor.sizes(),
                                         parameter.tensor.options().requires_grad(false).layout(at::kSparse))
        .to(parameter.tensor.device())
        ._coalesced_(state.get<bool>(name + ".coalesced"));
  }
  at::Tensor gradient = at::empty_like(parameter.tensor, at::TensorOptions().requires_grad(false));
  state.get_to(name, gradient);
  return gradient;
}

}  // namespace

WindowGradients::WindowGradients(const std::vector<NamedParameter>& parameters) : parameters_(parameters) {
  for (const NamedParameter& parameter : parameters_) known_.insert(parameter.tensor.unsafeGetTensorImpl());
}

std::vector<at::Tensor> WindowGradients::defined() const {
  std::vector<at::Tensor> gradients;
  for (const NamedParameter& parameter : parameters_) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  return gradients;
}

void WindowGradients::clear() {
  for (NamedParameter& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
}

void WindowGradients::put_away() {
  if (in_place_) {
    apart_.clear();
    for (const NamedParameter& parameter : parameters_) apart_.push_back(parameter.tensor.grad());
    in_place_ = false;
  }
  clear();
}

void WindowGradients::put_back() {
  if (in_place_) return;
  clear();
  for (std::size_t i = 0; i < apart_.size(); ++i) parameters_[i].tensor.mutable_grad() = std::move(apart_[i]);
  apart_.clear();
  in_place_ = true;
}

void WindowGradients::drop() {
  in_place_ = false;
  apart_.clear();
  clear();
}

void WindowGradients::save(State& state) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = in_place_ ? parameters_[i].tensor.grad() : apart_[i];
    if (gradient.defined()) put_gradient(state, parameters_[i].name, gradient);
  }
}

void WindowGradients::load(const std::vector<State>& shares) {
  drop();
  for (const NamedParameter& parameter : parameters_) {
    at::Tensor& gradient = apart_.emplace_back();
    for (const State& share : shares) {
      const at::Tensor part = get_gradient(share, parameter);
      if (part.defined()) gradient = gradient.defined() ? gradient.add_(part) : part;
    }
  }
}

void WindowGradients::multiply(double factor) {
  if (factor == 1) return;
  for (at::Tensor& gradient : apart_) {
    if (gradient.defined()) gradient.mul_(factor);
  }
}

bool WindowGradients::are_finite() const {
  return std::all_of(apart_.begin(), apart_.end(), [](const at::Tensor& gradient) {
    return !gradient.defined() || gradient.isfinite().all().item<bool>();
  });
}

}  // namespace holdfast
