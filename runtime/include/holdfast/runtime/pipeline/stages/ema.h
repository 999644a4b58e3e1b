// Ema: an exponential moving average of the parameters, which often evaluates better than the parameters themselves.
//   average ← decay · average + (1 − decay) · parameter, after each step that was not skipped; the first one copies.
// Source: Polyak and Juditsky, SIAM J. Control Optim. 30 (1992); decay as in torch.optim.swa_utils.get_ema_avg_fn.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

class Ema : public Stage {
 public:
  /// Throws Error(invalid) unless 0 ≤ decay < 1.
  explicit Ema(double decay);
  std::string name() const override { return "ema"; }
  Place place() const override { return Place::average; }
  void attach(StageContext& context) override;
  void begin(MicroBatch& micro) override;
  void after_update(const Update& update, const at::Tensor& stepped) override;
  void save(State& state) const override;
  void load(const State& state) override;

  /// The module computes with the averages while the returned object lives: for evaluation, inside one step's or
  /// epoch's body. The tensors are swapped, not copied. Throws Error(invalid) if they are swapped already.
  [[nodiscard]] std::shared_ptr<void> swap_in();

 private:
  void swap();
  bool has_begun() const;
  void settle();

  double decay_;
  std::vector<NamedParameter> parameters_;
  std::vector<at::Tensor> averages_;  // empty before the first step
  at::Tensor begun_;  // if only the device knows whether a step was made: 0 while the averages are zeros, then 1
  std::shared_ptr<bool> swapped_ = std::make_shared<bool>(false);
};

}  // namespace holdfast
