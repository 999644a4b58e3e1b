// TakesDeviceScale: what an optimizer offers so that mixed precision needs no host synchronisation.
//
// Loss scaling learns on the device whether a step must be skipped. An ordinary optimizer can only be told by the host,
// which has to wait for the device first; one of these is given the answer where it lies.
#pragma once

#include <ATen/core/Tensor.h>

namespace holdfast {

class TakesDeviceScale {
 public:
  virtual ~TakesDeviceScale() = default;

  /// One step, on gradients that are still multiplied by `scale`. Nothing here waits for the device.
  /// `scale`: float32, 0-dim; undefined: the gradients are not scaled.
  /// `found_inf`: float32, one element, exactly 1 to skip the step and 0 to take it; undefined: take it. A skipped step
  /// changes neither parameters nor gradients nor state and counts as none.
  /// Both are only read; they may lie on another device of the same kind than a parameter.
  virtual void step_scaled(const at::Tensor& scale, const at::Tensor& found_inf) = 0;

  /// Brings what the host knows of the state up to date with the device, for it to be read: step counts, and which
  /// parameters have state at all. Waits for the device, if steps that could have been skipped came since the last
  /// call.
  virtual void settle() = 0;
};

}  // namespace holdfast
