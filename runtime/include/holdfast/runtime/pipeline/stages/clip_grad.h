// Clipping: gradients that are too large are made smaller before the optimizer sees them. On the device alone: nothing
// waits for the host. On several ranks after the average, so all of them clip alike.
#pragma once

#include <string>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// Scales all gradients together so that their norm is at most `largest`. As torch.nn.utils.clip_grad_norm_; Pascanu et
/// al., "On the difficulty of training recurrent neural networks", ICML 2013.
class ClipGradNorm : public Stage {
 public:
  /// `p`: of the norm, infinity too. Throws Error(invalid) unless both are above 0.
  explicit ClipGradNorm(double largest, double p = 2);
  std::string name() const override { return "clip_grad_norm"; }
  Place place() const override { return Place::gradients; }
  void before_update(Update& update) override;
  /// Of the last update's gradients before they were clipped; undefined before the first one. No dimensions, on the
  /// device.
  const at::Tensor& norm() const { return norm_; }

 private:
  double largest_;
  double p_;
  at::Tensor norm_;
};

/// Moves each element of each gradient into [-largest, largest].
class ClipGradValue : public Stage {
 public:
  explicit ClipGradValue(double largest);
  std::string name() const override { return "clip_grad_value"; }
  Place place() const override { return Place::gradients; }
  void before_update(Update& update) override;

 private:
  double largest_;
};

}  // namespace holdfast
