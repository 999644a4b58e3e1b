#include "holdfast/runtime/optim/learning_rate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numbers>
#include <string_view>
#include <utility>

#include "holdfast/runtime/error.h"
#include "optim/curve_checks.h"

namespace holdfast {
namespace {

void require_some(std::uint64_t count, std::string_view maker, std::string_view parameter) {
  require_parameter(count > 0, maker, parameter, count, "at least 1");
}

double part_of(std::uint64_t step, std::uint64_t total) {
  return static_cast<double>(std::min(step, total)) / static_cast<double>(total);
}

double power_of(double factor, std::uint64_t times) { return std::pow(factor, static_cast<double>(times)); }

double warmed_up(std::uint64_t step, std::uint64_t warmup) {
  return step < warmup ? static_cast<double>(step + 1) / static_cast<double>(warmup) : 1;
}

// Uses PyTorch's order of operations, here and below: near the end 1 + cos(x) loses digits, and this order loses the
// same ones.
double cosine_at(std::uint64_t step, std::uint64_t total, double floor) {
  if (step >= total) return floor;
  const double angle = std::numbers::pi * static_cast<double>(step) / static_cast<double>(total);
  return floor + (1 - floor) * (1 + std::cos(angle)) / 2;
}

std::string with_floor(std::string arguments, double floor) {
  return floor == 0 ? arguments : fmt::format("{}, {}", arguments, floor);
}

double between(double from, double to, double part, OneCycleOptions::Anneal anneal) {
  if (anneal == OneCycleOptions::Anneal::linear) return std::lerp(from, to, part);
  return to + (from - to) / 2 * (std::cos(std::numbers::pi * part) + 1);
}

double one_cycle_at(const OneCycleOptions& options, std::uint64_t step) {
  const double first = options.max_lr / options.div_factor;
  const double last = first / options.final_div_factor;
  const double total = static_cast<double>(options.total);
  const double here = static_cast<double>(std::min(step, options.total - 1));

  struct Phase {
    double end_step;  // may be fractional; below 0 if pct_start is shorter than a step
    double end;
  };
  const double rising = options.pct_start * total;
  const std::array<Phase, 3> phases{{{rising - 1, options.max_lr}, {2 * rising - 2, first}, {total - 1, last}}};
  double start_step = 0;
  double start = first;
  for (std::size_t i = 0; i < phases.size(); ++i) {
    if (i == 1 && !options.three_phase) continue;
    const Phase& phase = phases[i];
    if (here <= phase.end_step || i + 1 == phases.size()) {
      // A phase of length 0, for which PyTorch divides by zero, is at its end.
      const double length = phase.end_step - start_step;
      return between(start, phase.end, length == 0 ? 1 : (here - start_step) / length, options.anneal);
    }
    start_step = phase.end_step;
    start = phase.end;
  }
  return last;
}

std::string_view to_string(OneCycleOptions::Anneal anneal) {
  return anneal == OneCycleOptions::Anneal::cosine ? "cosine" : "linear";
}

}  // namespace

LearningRate::LearningRate(std::string name, std::function<double(std::uint64_t)> curve)
    : name_(std::move(name)), curve_(std::move(curve)) {}

LearningRate LearningRate::constant() {
  return {"constant()", [](std::uint64_t) { return 1.0; }};
}

LearningRate LearningRate::linear_warmup(std::uint64_t warmup) {
  return {fmt::format("linear_warmup({})", warmup), [=](std::uint64_t step) { return warmed_up(step, warmup); }};
}

LearningRate LearningRate::warmup_cosine(std::uint64_t warmup, std::uint64_t total, double floor) {
  require_some(total, "warmup_cosine", "total");
  require_parameter(warmup <= total, "warmup_cosine", "warmup", warmup,
                    fmt::format("at most total, which is {}", total));
  require_parameter(is_fraction(floor), "warmup_cosine", "floor", floor, kFractionRange);
  return {fmt::format("warmup_cosine({})", with_floor(fmt::format("{}, {}", warmup, total), floor)),
          [=](std::uint64_t step) {
            return step < warmup ? warmed_up(step, warmup) : cosine_at(step - warmup, total - warmup, floor);
          }};
}

LearningRate LearningRate::cosine(std::uint64_t total, double floor) {
  require_some(total, "cosine", "total");
  require_parameter(is_fraction(floor), "cosine", "floor", floor, kFractionRange);
  return {fmt::format("cosine({})", with_floor(fmt::format("{}", total), floor)),
          [=](std::uint64_t step) { return cosine_at(step, total, floor); }};
}

LearningRate LearningRate::step(std::uint64_t every, double factor) {
  require_some(every, "step", "every");
  require_multiple(factor, "step", "factor");
  return {fmt::format("step({}, {})", every, factor),
          [=](std::uint64_t step) { return power_of(factor, step / every); }};
}

LearningRate LearningRate::multi_step(std::vector<std::uint64_t> milestones, double factor) {
  for (std::size_t i = 1; i < milestones.size(); ++i) {
    require_parameter(milestones[i - 1] < milestones[i], "multi_step", fmt::format("milestones[{}]", i), milestones[i],
                      fmt::format("more than the one before it, which is {}", milestones[i - 1]));
  }
  require_multiple(factor, "multi_step", "factor");
  auto name = fmt::format("multi_step({{{}}}, {})", fmt::join(milestones, ", "), factor);
  return {std::move(name), [milestones = std::move(milestones), factor](std::uint64_t step) {
            const auto next = std::upper_bound(milestones.begin(), milestones.end(), step);
            return power_of(factor, static_cast<std::uint64_t>(std::distance(milestones.begin(), next)));
          }};
}

LearningRate LearningRate::exponential(double factor) {
  require_multiple(factor, "exponential", "factor");
  return {fmt::format("exponential({})", factor), [=](std::uint64_t step) { return power_of(factor, step); }};
}

LearningRate LearningRate::polynomial(std::uint64_t total, double power) {
  require_some(total, "polynomial", "total");
  require_multiple(power, "polynomial", "power");
  return {fmt::format("polynomial({}, {})", total, power),
          [=](std::uint64_t step) { return std::pow(1 - part_of(step, total), power); }};
}

LearningRate LearningRate::linear(double from, double to, std::uint64_t total) {
  require_multiple(from, "linear", "from");
  require_multiple(to, "linear", "to");
  require_some(total, "linear", "total");
  return {fmt::format("linear({}, {}, {})", from, to, total),
          [=](std::uint64_t step) { return std::lerp(from, to, part_of(step, total)); }};
}

LearningRate LearningRate::one_cycle(const OneCycleOptions& options) {
  constexpr std::string_view positive = "a finite number above 0";
  const auto is_positive = [](double x) { return x > 0 && std::isfinite(x); };
  require_some(options.total, "one_cycle", "total");
  require_parameter(is_positive(options.max_lr), "one_cycle", "max_lr", options.max_lr, positive);
  require_parameter(is_fraction(options.pct_start), "one_cycle", "pct_start", options.pct_start, kFractionRange);
  require_parameter(!options.three_phase || options.pct_start <= 0.5, "one_cycle", "pct_start", options.pct_start,
                    "at most 0.5 with three_phase, because the rate falls as long as it rose before its last descent");
  require_parameter(is_positive(options.div_factor), "one_cycle", "div_factor", options.div_factor, positive);
  require_parameter(is_positive(options.final_div_factor), "one_cycle", "final_div_factor", options.final_div_factor,
                    positive);
  return {fmt::format("one_cycle(total {}, max_lr {}, pct_start {}, {}, div_factor {}, final_div_factor {}{})",
                      options.total, options.max_lr, options.pct_start, to_string(options.anneal), options.div_factor,
                      options.final_div_factor, options.three_phase ? ", three_phase" : ""),
          [options](std::uint64_t step) { return one_cycle_at(options, step); }};
}

LearningRate LearningRate::function(std::function<double(std::uint64_t step)> factor) {
  require_parameter(factor != nullptr, "function", "factor", "empty", "a function of the step's number");
  return {"function", std::move(factor)};
}

double LearningRate::factor(std::uint64_t step) const {
  const double value = plateau_ ? plateau_->factor : curve_(step);
  if (!is_multiple(value)) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("the learning rate {} gives the factor {} for step {}; it must "
                            "be {}",
                            name_, value, step, kMultipleRange));
  }
  return value;
}

}  // namespace holdfast
