// Amp: mixed precision. Forward passes run under autocast. With fp16 the loss is multiplied by a scale that grows while
// gradients stay finite. When they do not, it shrinks and the step is skipped.
// Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018; the scale follows PyTorch's torch.amp.GradScaler.
#pragma once

#include <memory>
#include <string>

#include "holdfast/runtime/options/option_types.h"
#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

struct AmpOptions {
  double initial_scale = 65536;  // all of these are for fp16
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int growth_interval = 2000;  // steps without overflow before the scale grows
};

class Amp : public Stage {
 public:
  explicit Amp(Precision precision = Precision::automatic, const AmpOptions& options = {});
  std::string name() const override { return "amp"; }
  Place place() const override { return Place::precision; }
  void attach(StageContext& context) override;
  std::shared_ptr<void> forward_scope(const MicroBatch& micro) override;
  void before_backward(const MicroBatch& micro, at::Tensor& loss) override;
  double loss_scale() const override { return scale(); }
  void before_update(Update& update) override;
  void after_update(const Update& update, const at::Tensor& stepped) override;
  void save(State& state) const override;
  void load(const State& state) override;

  /// After the pipeline is made: the precision in use, never `automatic`.
  Precision precision() const { return precision_; }
  /// The loss scale; 1 without fp16. Waits for the device.
  double scale() const;

 private:
  Precision precision_;
  AmpOptions options_;
  c10::Device device_ = c10::kCPU;
  at::Tensor scale_;   // float32, no dimensions; undefined without fp16
  at::Tensor growth_;  // int32, no dimensions: steps since the scale last changed
};

}  // namespace holdfast
