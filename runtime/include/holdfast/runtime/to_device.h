// to_device(batch, device): how a loop brings a batch to the session's device before the program sees it. Tensors and
// what has tensors as its data and target (torch::data::Example) are known; a batch type of the program's own gets
// there by a function of this name beside the type, which is found by argument-dependent lookup. Any other batch stays
// as it is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <concepts>
#include <utility>

namespace holdfast {

inline at::Tensor to_device(at::Tensor tensor, c10::Device device) {
  return tensor.to(device, tensor.scalar_type(), /*non_blocking=*/true);
}

template <class Batch>
concept HasDataAndTarget = requires(Batch batch) {
  { batch.data } -> std::convertible_to<at::Tensor>;
  { batch.target } -> std::convertible_to<at::Tensor>;
};

template <HasDataAndTarget Batch>
Batch to_device(Batch batch, c10::Device device) {
  batch.data = to_device(at::Tensor(std::move(batch.data)), device);
  batch.target = to_device(at::Tensor(std::move(batch.target)), device);
  return batch;
}

template <class Batch>
concept MovesToDevice = requires(Batch batch, c10::Device device) {
  { to_device(std::move(batch), device) } -> std::convertible_to<Batch>;
};

/// What a loop calls.
template <class Batch>
Batch bring_to_device(Batch batch, c10::Device device) {
  if constexpr (MovesToDevice<Batch>) {
    return to_device(std::move(batch), device);
  } else {
    return batch;
  }
}

}  // namespace holdfast
