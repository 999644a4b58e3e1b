// LearningRate: how the learning rate goes over a run, as a multiple of each parameter group's own initial rate. Every
// kind but plateau() is a pure function of the number of optimizer steps done, so a resumed run goes on exactly where
// it was with nothing restored; plateau() has a small state.
//
// Steps are optimizer steps, numbered from 0: factor(0) is for the first one. That is `last_epoch` of PyTorch's
// schedulers ("torch.optim.lr_scheduler"), whose formulas these are where nothing else is said. A warm-up counts from
// 1: of `warmup` steps the first has 1/warmup and the last has 1. None has 0, which would waste a step.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

/// PyTorch's OneCycleLR, after Smith and Topin, "Super-Convergence", arXiv:1708.07120. The rate alone: momentum stays.
struct OneCycleOptions {
  enum class Anneal { cosine, linear };
  std::uint64_t total = 0;         // steps of the cycle
  double max_lr = 1;               // the peak, as a multiple of the group's initial rate
  double pct_start = 0.3;          // the part of `total` that rises, from 0 to 1; at most 0.5 with three_phase
  Anneal anneal = Anneal::cosine;  // the shape of each phase
  double div_factor = 25;          // the first step has max_lr / div_factor
  double final_div_factor = 1e4;   // the last step has max_lr / div_factor / final_div_factor
  bool three_phase = false;        // fall as long as it rose, back to the first step's rate, before the last descent
};

/// PyTorch's ReduceLROnPlateau, but for its `eps`: no reduction is too small to be made.
struct PlateauOptions {
  enum class Mode { min, max };           // whether a smaller or a larger metric is better
  enum class ThresholdMode { rel, abs };  // rel is for metrics above 0 only
  Mode mode = Mode::min;
  double factor = 0.1;          // each reduction multiplies by it; at least 0, below 1
  std::uint64_t patience = 10;  // observations in a row without a better metric that change nothing; the next reduces
  double threshold = 1e-4;      // by how much, or by which part of the best, better must be better
  ThresholdMode threshold_mode = ThresholdMode::rel;
  std::uint64_t cooldown = 0;  // observations after a reduction of which none counts as bad
  double min_lr = 0;           // reductions end here; a multiple of the group's initial rate, from 0 to 1
};

/// A value; any thread may call its const members. The makers throw Error (invalid) with a sentence that names the
/// parameter, its value and what it may be. Lengths are in steps; multiples are finite and at least 0.
class LearningRate {
 public:
  /// 1 at every step.
  static LearningRate constant();
  /// (step + 1) / warmup, then 1. Without steps to warm up: 1.
  static LearningRate linear_warmup(std::uint64_t warmup);
  /// linear_warmup, then cosine over what is left of `total`: 1 once more at step `warmup`, `floor` from `total` on.
  static LearningRate warmup_cosine(std::uint64_t warmup, std::uint64_t total, double floor = 0);
  /// From 1 down to `floor` by half a cosine (SGDR, arXiv:1608.03983, without restarts). From `total` on: `floor`,
  /// where CosineAnnealingLR would rise again.
  static LearningRate cosine(std::uint64_t total, double floor = 0);
  /// StepLR: times `factor` at every multiple of `every`, without end.
  static LearningRate step(std::uint64_t every, double factor);
  /// MultiStepLR: times `factor` at each of the ascending step numbers; after the last of them it stays.
  static LearningRate multi_step(std::vector<std::uint64_t> milestones, double factor);
  /// ExponentialLR: times `factor` at every step, without end.
  static LearningRate exponential(double factor);
  /// PolynomialLR: (1 - step / total) ^ power. From `total` on: 0 (for the power 0: 1).
  static LearningRate polynomial(std::uint64_t total, double power = 1);
  /// LinearLR: `from` at step 0, `to` from step `total` on. Unlike a warm-up it does not skip `from`, even where it is
  /// 0.
  static LearningRate linear(double from, double to, std::uint64_t total);
  /// After the cycle, where OneCycleLR throws: the last step's value.
  static LearningRate one_cycle(const OneCycleOptions& options);
  /// 1 until observe() was told often enough that nothing got better.
  static LearningRate plateau(const PlateauOptions& options = {});
  /// The user's own, over all steps. It must depend on nothing but the step, or a resumed run goes another way.
  static LearningRate function(std::function<double(std::uint64_t step)> factor);

  /// The multiple for the step with that number; plateau's depends on what was observed instead. Throws Error (invalid)
  /// where it is negative or not finite: a user's function gave it, or a factor above 1 grew too large.
  double factor(std::uint64_t step) const;
  /// For plateau: the metric after an epoch or an evaluation, the same on every rank. NaN is never better. Throws Error
  /// (invalid) for every other kind.
  void observe(double metric);
  bool observes() const { return plateau_.has_value(); }

  /// "warmup_cosine(500, 20000)": the kind and all its parameters. It stands in saved states. A function is "function".
  std::string name() const { return name_; }

  /// The name, and what plateau has observed.
  nlohmann::json state() const;
  /// Takes up what was observed; all parameters stay the program's. Another kind's state changes nothing, and the best
  /// metric of a plateau with another mode is forgotten. Throws Error (misfit), with nothing changed, for what is no
  /// schedule's state.
  void set_state(const nlohmann::json& saved);
  /// A sentence where the saved schedule has another name than this one, else empty.
  std::string differences(const nlohmann::json& saved) const;

 private:
  struct Plateau {
    PlateauOptions options;
    double factor = 1;
    double best = 0;
    std::uint64_t bad = 0;      // observations in a row that were not better
    std::uint64_t cooling = 0;  // observations left of the cooldown
  };

  LearningRate(std::string name, std::function<double(std::uint64_t)> curve);

  std::string name_;
  std::function<double(std::uint64_t)> curve_;  // empty for plateau
  std::optional<Plateau> plateau_;
};

}  // namespace holdfast
