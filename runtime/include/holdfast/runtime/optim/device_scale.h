// TakesDeviceScale: the interface of an optimizer that supports mixed precision without host synchronisation.
//
// Loss scaling computes on the device whether a step must be skipped. With an ordinary optimizer the host must wait for
// that result; an optimizer with this interface reads it on the device.
#pragma once

#include <ATen/core/Tensor.h>

namespace holdfast {

class TakesDeviceScale {
 public:
  virtual ~TakesDeviceScale() = default;

  /// One step, on gradients that are still multiplied by `scale`. Nothing here waits for the device.
  /// `scale`: float32, 0-dim; undefined: the gradients are not scaled.
  /// `found_inf`: float32, one element, exactly 1 to skip the step and 0 to take it; undefined: take it. A skipped step
  /// changes neither parameters nor gradients nor state and is not counted.
  /// Both are only read; they may be on a different device of the same type than a parameter.
  virtual void step_scaled(const at::Tensor& scale, const at::Tensor& found_inf) = 0;

  /// Updates the host's view of the state from the device before it is read: step counts, and which parameters have
  /// state. Waits for the device if steps that could have been skipped were made since the last call.
  virtual void settle() = 0;
};

}  // namespace holdfast
