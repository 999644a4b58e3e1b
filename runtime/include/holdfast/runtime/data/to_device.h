// to_device(batch, device): how a loop brings a batch to the session's device before the program sees it. Tensors and
// what has tensors as its data and target (torch::data::Example) are known; a batch type of the program's own gets
// there by a function of this name beside the type, which is found by argument-dependent lookup. Any other batch stays
// as it is. pin_memory(batch), known for the same types and found in the same way, puts a batch where a GPU can fetch
// it by itself; it is called by the loader's workers.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <concepts>
#include <utility>

namespace holdfast {

inline at::Tensor to_device(at::Tensor tensor, c10::Device device) {
  return tensor.defined() ? tensor.to(device, tensor.scalar_type(), /*non_blocking=*/true) : tensor;
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

inline at::Tensor pin_memory(at::Tensor tensor) {
  return tensor.defined() && tensor.is_cpu() ? tensor.pin_memory() : tensor;
}

template <HasDataAndTarget Batch>
Batch pin_memory(Batch batch) {
  batch.data = pin_memory(at::Tensor(std::move(batch.data)));
  batch.target = pin_memory(at::Tensor(std::move(batch.target)));
  return batch;
}

template <class Batch>
concept PinsMemory = requires(Batch batch) {
  { pin_memory(std::move(batch)) } -> std::convertible_to<Batch>;
};

template <class Batch>
concept MovesToDevice = requires(Batch batch, c10::Device device) {
  { to_device(std::move(batch), device) } -> std::convertible_to<Batch>;
};

/// What loaders call.
template <class Batch>
Batch bring_to_pinned_memory(Batch batch) {
  if constexpr (PinsMemory<Batch>) {
    return pin_memory(std::move(batch));
  } else {
    return batch;
  }
}

template <class Batch>
Batch bring_to_device(Batch batch, c10::Device device) {
  if constexpr (MovesToDevice<Batch>) {
    return to_device(std::move(batch), device);
  } else {
    return batch;
  }
}

}  // namespace holdfast
