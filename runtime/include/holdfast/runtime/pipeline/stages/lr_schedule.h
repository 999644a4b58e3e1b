// LrSchedule: sets every group's learning rate before each update, to a multiple of its initial rate
// (learning_rate.h). Steps skipped because gradients overflowed do not count.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "holdfast/runtime/optim/learning_rate.h"
#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

class LrSchedule : public Stage {
 public:
  explicit LrSchedule(LearningRate rate) : rate_(std::move(rate)) {}
  static LrSchedule constant() { return LrSchedule(LearningRate::constant()); }
  static LrSchedule linear_warmup(std::uint64_t warmup) { return LrSchedule(LearningRate::linear_warmup(warmup)); }
  static LrSchedule warmup_cosine(std::uint64_t warmup, std::uint64_t total, double floor = 0) {
    return LrSchedule(LearningRate::warmup_cosine(warmup, total, floor));
  }
  static LrSchedule cosine(std::uint64_t total, double floor = 0) {
    return LrSchedule(LearningRate::cosine(total, floor));
  }
  static LrSchedule step(std::uint64_t every, double factor) { return LrSchedule(LearningRate::step(every, factor)); }
  static LrSchedule polynomial(std::uint64_t total, double power = 1) {
    return LrSchedule(LearningRate::polynomial(total, power));
  }
  static LrSchedule one_cycle(const OneCycleOptions& options) { return LrSchedule(LearningRate::one_cycle(options)); }
  static LrSchedule plateau(const PlateauOptions& options = {}) { return LrSchedule(LearningRate::plateau(options)); }
  /// The user's own multiple for each step.
  static LrSchedule function(std::function<double(std::uint64_t step)> factor) {
    return LrSchedule(LearningRate::function(std::move(factor)));
  }

  std::string name() const override { return "lr_schedule"; }
  Place place() const override { return Place::schedule; }
  void attach(StageContext& context) override;
  void before_update(Update& update) override;
  void save(State& state) const override;
  void load(const State& state) override;

  /// For plateau: the metric of an evaluation. Every rank passes the same value; throws RankFault if they differ,
  /// because the learning rates would differ too.
  void observe(double metric, Group::Site site = Group::Site::current());

 private:
  LearningRate rate_;
  Group* group_ = nullptr;
  torch::optim::Optimizer* optimizer_ = nullptr;
  std::vector<double> initial_;  // each group's rate when the optimizer was made
  std::function<void(const std::string&)> say_;
};

}  // namespace holdfast
