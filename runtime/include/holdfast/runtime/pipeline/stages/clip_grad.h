// Clipping: limits large gradients before the optimizer sees them. Runs on the device alone, without waiting for the
// host. With several ranks it follows the averaging, so all of them clip alike.
#pragma once

#include <string>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

/// Scales all gradients together so that their norm is at most `largest`. Follows torch.nn.utils.clip_grad_norm_;
/// Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013.
class ClipGradNorm : public Stage {
 public:
  /// `p`: the norm's order; may be infinity. Throws Error(invalid) unless both are above 0.
  explicit ClipGradNorm(double largest, double p = 2);
  std::string name() const override { return "clip_grad_norm"; }
  Place place() const override { return Place::gradients; }
  void before_update(Update& update) override;
  /// The norm of the last update's gradients before clipping; undefined before the first update. No dimensions, on the
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
