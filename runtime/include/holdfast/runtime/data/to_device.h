// to_device(batch, device) moves a batch to the session's device before the program receives it. It is defined for
// tensors and for types whose `data` and `target` are tensors (torch::data::Example). For another batch type, the
// program defines a function of this name beside the type, which is found by argument-dependent lookup. Any other batch
// stays as it is. pin_memory(batch), defined for the same types and found in the same way, moves a batch to pinned
// memory, from which a GPU copies asynchronously; the loader's workers call it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <concepts>
#include <utility>

namespace holdfast {
namespace detail {

template <class Batch>
concept HasDataAndTarget = requires(Batch batch) {
  { batch.data } -> std::convertible_to<at::Tensor>;
  { batch.target } -> std::convertible_to<at::Tensor>;
};

}  // namespace detail

inline at::Tensor to_device(at::Tensor tensor, c10::Device device) {
  return tensor.defined() ? tensor.to(device, tensor.scalar_type(), /*non_blocking=*/true) : tensor;
}

template <detail::HasDataAndTarget Batch>
Batch to_device(Batch batch, c10::Device device) {
  batch.data = to_device(at::Tensor(std::move(batch.data)), device);
  batch.target = to_device(at::Tensor(std::move(batch.target)), device);
  return batch;
}

inline at::Tensor pin_memory(at::Tensor tensor) {
  return tensor.defined() && tensor.is_cpu() ? tensor.pin_memory() : tensor;
}

template <detail::HasDataAndTarget Batch>
Batch pin_memory(Batch batch) {
  batch.data = pin_memory(at::Tensor(std::move(batch.data)));
  batch.target = pin_memory(at::Tensor(std::move(batch.target)));
  return batch;
}

namespace detail {

template <class Batch>
concept PinsMemory = requires(Batch batch) {
  { pin_memory(std::move(batch)) } -> std::convertible_to<Batch>;
};

template <class Batch>
concept MovesToDevice = requires(Batch batch, c10::Device device) {
  { to_device(std::move(batch), device) } -> std::convertible_to<Batch>;
};

/// Loaders call this function and bring_to_device().
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

}  // namespace detail
}  // namespace holdfast
