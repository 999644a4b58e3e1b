// LearningRate: the schedule of the learning rate over a run, as a multiple of each parameter group's own initial rate.
// Every kind except plateau() is a pure function of the number of optimizer steps done, so a resumed run continues
// exactly without restored state; plateau() has a small state.
//
// Steps are optimizer steps, numbered from 0: factor(0) applies to the first one. This number is `last_epoch` of
// PyTorch's schedulers ("torch.optim.lr_scheduler"). The formulas are PyTorch's unless noted otherwise. A warm-up
// counts from 1: the first of `warmup` steps has 1/warmup and the last has 1. No step has 0, which would waste it.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace holdfast {

/// PyTorch's OneCycleLR, after Smith and Topin, "Super-Convergence", arXiv:1708.07120. Only the rate changes, not
/// momentum.
struct OneCycleOptions {
  enum class Anneal { cosine, linear };
  std::uint64_t total = 0;         // steps of the cycle
  double max_lr = 1;               // the peak, as a multiple of the group's initial rate
  double pct_start = 0.3;          // part of `total` with a rising rate, from 0 to 1; at most 0.5 with three_phase
  Anneal anneal = Anneal::cosine;  // the shape of each phase
  double div_factor = 25;          // the first step has max_lr / div_factor
  double final_div_factor = 1e4;   // the last step has max_lr / div_factor / final_div_factor
  bool three_phase = false;        // a fall as long as the rise, to the first step's rate, precedes the last descent
};

/// PyTorch's ReduceLROnPlateau without its `eps`: every reduction is applied, however small.
struct PlateauOptions {
  enum class Mode { min, max };           // whether a smaller or a larger metric is better
  enum class ThresholdMode { rel, abs };  // rel is for metrics above 0 only
  Mode mode = Mode::min;
  double factor = 0.1;          // each reduction multiplies by it; at least 0, below 1
  std::uint64_t patience = 10;  // tolerated observations in a row without a better metric; the next one reduces
  double threshold = 1e-4;      // the improvement that counts as better: absolute, or relative to the best
  ThresholdMode threshold_mode = ThresholdMode::rel;
  std::uint64_t cooldown = 0;  // observations after a reduction that never count as bad
  double min_lr = 0;           // the lower limit of reductions; a multiple of the group's initial rate, from 0 to 1
};

/// A value; any thread may call its const members. The static functions throw Error (invalid) with a sentence that
/// names the parameter, its value and the values that are allowed. Lengths are in steps; multiples are finite and at
/// least 0.
class LearningRate {
 public:
  /// 1 at every step.
  static LearningRate constant();
  /// (step + 1) / warmup, then 1. If warmup is 0: always 1.
  static LearningRate linear_warmup(std::uint64_t warmup);
  /// linear_warmup, then cosine over the rest of `total`: 1 again at step `warmup`, `floor` from `total` on.
  static LearningRate warmup_cosine(std::uint64_t warmup, std::uint64_t total, double floor = 0);
  /// From 1 down to `floor` by half a cosine (SGDR, arXiv:1608.03983, without restarts). From `total` on: `floor`;
  /// CosineAnnealingLR would rise again.
  static LearningRate cosine(std::uint64_t total, double floor = 0);
  /// StepLR: times `factor` at every multiple of `every`, without end.
  static LearningRate step(std::uint64_t every, double factor);
  /// MultiStepLR: times `factor` at each of the ascending step numbers; constant after the last one.
  static LearningRate multi_step(std::vector<std::uint64_t> milestones, double factor);
  /// ExponentialLR: times `factor` at every step, without end.
  static LearningRate exponential(double factor);
  /// PolynomialLR: (1 - step / total) ^ power. From `total` on: 0 (for the power 0: 1).
  static LearningRate polynomial(std::uint64_t total, double power = 1);
  /// LinearLR: `from` at step 0, `to` from step `total` on. Unlike a warm-up it does not skip `from`, even if it is 0.
  static LearningRate linear(double from, double to, std::uint64_t total);
  /// After the cycle: the last step's value; OneCycleLR throws there.
  static LearningRate one_cycle(const OneCycleOptions& options);
  /// Starts at 1; observe() reduces it after enough metrics without improvement.
  static LearningRate plateau(const PlateauOptions& options = {});
  /// A user's own function of the step, for all steps. It must depend only on the step, or a resumed run diverges.
  static LearningRate function(std::function<double(std::uint64_t step)> factor);

  /// The multiple for that step number; for plateau it depends on the observed metrics instead. Throws Error (invalid)
  /// if it is negative or not finite, because of a user's function or because a factor above 1 grew too large.
  double factor(std::uint64_t step) const;
  /// For plateau: takes the metric after an epoch or an evaluation, the same on every rank. NaN is never better. Throws
  /// Error (invalid) for every other kind.
  void observe(double metric);
  bool observes() const { return plateau_.has_value(); }

  /// The kind and all its parameters, as in "warmup_cosine(500, 20000)"; part of saved states. A function is
  /// "function".
  std::string name() const { return name_; }

  /// The name, and what plateau has observed. Its best metric may be infinite, which JSON text cannot represent; a
  /// tracked schedule preserves it.
  nlohmann::json state() const;
  /// Restores what was observed; all parameters stay the program's. The state of another kind changes nothing, and the
  /// best metric of a plateau with another mode is discarded. Throws Error (misfit), and changes nothing, if `saved` is
  /// not the state of a schedule.
  void set_state(const nlohmann::json& saved);
  /// A sentence if the saved schedule has another name than this one, otherwise empty.
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
