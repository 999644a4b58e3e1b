#include "holdfast/runtime/pipeline/stages/ema.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "holdfast/runtime/error.h"
#include "tensors/tensor_groups.h"

namespace holdfast {

using storage::StatusCode;

Ema::Ema(double decay) : decay_(decay) {
  if (!(decay >= 0 && decay < 1)) {
    throw Error(StatusCode::invalid, fmt::format("Ema({}): the decay is at least 0 and below 1", decay));
  }
}

void Ema::attach(StageContext& context) { parameters_ = context.parameters; }

void Ema::begin(MicroBatch&) {
  if (!*swapped_) return;
  throw Error(StatusCode::invalid,
              "a step begins while the parameters hold the averages: end the scope of swap_in() before training "
              "continues");
}

void Ema::after_update(const Update&, const at::Tensor& stepped) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> current;
  for (const NamedParameter& parameter : parameters_) current.push_back(parameter.tensor.detach());
  if (averages_.empty() && !stepped.defined()) {
    for (const at::Tensor& parameter : current) averages_.push_back(parameter.clone());
    return;
  }
  // If steps may be skipped, only the device knows which were, and so which was the first.
  if (averages_.empty()) {
    for (const at::Tensor& parameter : current) averages_.push_back(at::zeros_like(parameter));
    begun_ = at::zeros_like(stepped);
  }
  at::Tensor weight;
  if (stepped.defined()) weight = stepped * (1 - decay_);
  if (begun_.defined()) {
    weight = begun_ * weight + (1 - begun_) * stepped;
    begun_ = at::maximum(begun_, stepped);
  }
  const auto averages = by_kind(averages_), values = by_kind(current);
  for (std::size_t i = 0; i < averages.size(); ++i) {
    if (!weight.defined()) {
      at::_foreach_lerp_(averages[i], values[i], 1 - decay_);
      continue;
    }
    auto moves = at::_foreach_sub(values[i], averages[i]);
    at::_foreach_mul_(moves, weight.to(averages[i].front().device()));
    at::_foreach_add_(averages[i], moves);
  }
}

bool Ema::has_begun() const { return !averages_.empty() && (!begun_.defined() || begun_.item<float>() != 0); }

void Ema::settle() {
  if (!has_begun()) averages_.clear();
  begun_.reset();
}

void Ema::swap() {
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    at::Tensor& parameter = parameters_[i].tensor;
    const at::Tensor mine = parameter.detach();
    // Swaps the storage with its offset: a parameter may be a part of a larger tensor, as an LSTM's weights on a GPU.
    auto* const impl = parameter.unsafeGetTensorImpl();
    impl->set_storage_and_dtype(averages_[i].storage(), averages_[i].dtype());
    impl->set_sizes_and_strides(averages_[i].sizes(), averages_[i].strides(), averages_[i].storage_offset());
    impl->bump_version();  // a backward pass over what was computed with the former values is an error
    averages_[i] = mine;
  }
}

std::shared_ptr<void> Ema::swap_in() {
  if (*swapped_) throw Error(StatusCode::invalid, "the averages are in the parameters' place already");
  settle();
  swap();
  *swapped_ = true;
  return std::shared_ptr<void>(this, [this](void*) {
    swap();
    *swapped_ = false;
  });
}

void Ema::save(State& state) const {
  if (*swapped_) {
    throw Error(
        StatusCode::invalid,
        "a save is due while the averages are in the parameters' place: end swap_in()'s scope within the step's "
        "or epoch's body");
  }
  if (!has_begun()) return;
  for (std::size_t i = 0; i < averages_.size(); ++i) state.put_alike(parameters_[i].name, averages_[i]);
}

void Ema::load(const State& state) {
  if (*swapped_) {
    throw Error(StatusCode::invalid,
                "a checkpoint is loaded while the averages are in the parameters' place: end swap_in()'s scope before");
  }
  averages_.clear();
  begun_.reset();
  if (state.tensors().empty()) return;
  for (const NamedParameter& parameter : parameters_) {
    averages_.push_back(parameter.tensor.detach().clone());  // the average of a new parameter begins here
    if (state.has(parameter.name)) state.get_to(parameter.name, averages_.back());
  }
}

}  // namespace holdfast
