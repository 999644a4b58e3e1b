#include "holdfast/runtime/optim/learning_rate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>
#include <string_view>
#include <utility>

#include "exact_json.h"
#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

constexpr std::string_view kMultiple = "a finite number that is at least 0";
constexpr std::string_view kPart = "a number from 0 to 1";

template <class Value>
void require(bool right, std::string_view maker, std::string_view parameter, const Value& value,
             std::string_view what_is_right) {
  if (right) return;
  throw Error(storage::StatusCode::invalid,
              fmt::format("{}: {} is {}; it must be {}", maker, parameter, value, what_is_right));
}

// NaN is neither.
bool is_multiple(double x) { return x >= 0 && std::isfinite(x); }
bool is_part(double x) { return x >= 0 && x <= 1; }

void require_multiple(double x, std::string_view maker, std::string_view parameter) {
  require(is_multiple(x), maker, parameter, x, kMultiple);
}

void require_some(std::uint64_t count, std::string_view maker, std::string_view parameter) {
  require(count > 0, maker, parameter, count, "at least 1");
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

std::string_view to_string(PlateauOptions::Mode mode) { return mode == PlateauOptions::Mode::min ? "min" : "max"; }

std::string_view to_string(PlateauOptions::ThresholdMode mode) {
  return mode == PlateauOptions::ThresholdMode::rel ? "rel" : "abs";
}

// A value that is worse than every metric.
double worst(PlateauOptions::Mode mode) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  return mode == PlateauOptions::Mode::min ? infinity : -infinity;
}

bool is_better(double metric, double best, const PlateauOptions& options) {
  const bool relative = options.threshold_mode == PlateauOptions::ThresholdMode::rel;
  if (options.mode == PlateauOptions::Mode::min) {
    return metric < (relative ? best * (1 - options.threshold) : best - options.threshold);
  }
  return metric > (relative ? best * (1 + options.threshold) : best + options.threshold);
}

[[noreturn]] void misfit(const std::string& what) {
  throw Error(storage::StatusCode::misfit, "the checkpoint's state of the learning rate " + what);
}

const nlohmann::json& field(const nlohmann::json& state, const char* key) {
  const auto found = state.find(key);
  if (found == state.end()) misfit(fmt::format("has no \"{}\"", key));
  return *found;
}

std::string text_in(const nlohmann::json& state, const char* key) {
  const auto& value = field(state, key);
  if (!value.is_string()) misfit(fmt::format("has {} as \"{}\", where a text belongs", value.dump(), key));
  return value.get<std::string>();
}

double number_in(const nlohmann::json& state, const char* key) {
  const auto& value = field(state, key);
  if (!value.is_number()) misfit(fmt::format("has {} as \"{}\", where a number belongs", value.dump(), key));
  return value.get<double>();
}

std::uint64_t count_in(const nlohmann::json& state, const char* key) {
  const auto& value = field(state, key);
  if (!value.is_number_integer() || value < 0) {
    misfit(fmt::format("has {} as \"{}\", where a count belongs", value.dump(), key));
  }
  return value.get<std::uint64_t>();
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
  require(warmup <= total, "warmup_cosine", "warmup", warmup, fmt::format("at most total, which is {}", total));
  require(is_part(floor), "warmup_cosine", "floor", floor, kPart);
  return {fmt::format("warmup_cosine({})", with_floor(fmt::format("{}, {}", warmup, total), floor)),
          [=](std::uint64_t step) {
            return step < warmup ? warmed_up(step, warmup) : cosine_at(step - warmup, total - warmup, floor);
          }};
}

LearningRate LearningRate::cosine(std::uint64_t total, double floor) {
  require_some(total, "cosine", "total");
  require(is_part(floor), "cosine", "floor", floor, kPart);
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
    require(milestones[i - 1] < milestones[i], "multi_step", fmt::format("milestones[{}]", i), milestones[i],
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
  require(is_positive(options.max_lr), "one_cycle", "max_lr", options.max_lr, positive);
  require(is_part(options.pct_start), "one_cycle", "pct_start", options.pct_start, kPart);
  require(!options.three_phase || options.pct_start <= 0.5, "one_cycle", "pct_start", options.pct_start,
          "at most 0.5 with three_phase, because the rate falls as long as it rose before its last descent");
  require(is_positive(options.div_factor), "one_cycle", "div_factor", options.div_factor, positive);
  require(is_positive(options.final_div_factor), "one_cycle", "final_div_factor", options.final_div_factor, positive);
  return {fmt::format("one_cycle(total {}, max_lr {}, pct_start {}, {}, div_factor {}, final_div_factor {}{})",
                      options.total, options.max_lr, options.pct_start, to_string(options.anneal), options.div_factor,
                      options.final_div_factor, options.three_phase ? ", three_phase" : ""),
          [options](std::uint64_t step) { return one_cycle_at(options, step); }};
}

LearningRate LearningRate::plateau(const PlateauOptions& options) {
  const bool relative = options.threshold_mode == PlateauOptions::ThresholdMode::rel;
  require(options.factor >= 0 && options.factor < 1, "plateau", "factor", options.factor, "at least 0 and below 1");
  require_multiple(options.threshold, "plateau", "threshold");
  require(!relative || options.mode == PlateauOptions::Mode::max || options.threshold < 1, "plateau", "threshold",
          options.threshold, "below 1 if it is relative and the mode is min, or no metric is ever better");
  require(is_part(options.min_lr), "plateau", "min_lr", options.min_lr, kPart);
  LearningRate rate(fmt::format("plateau({}, factor {}, patience {}, threshold {} {}, cooldown {}, min_lr {})",
                                to_string(options.mode), options.factor, options.patience, options.threshold,
                                to_string(options.threshold_mode), options.cooldown, options.min_lr),
                    nullptr);
  rate.plateau_ = Plateau{.options = options, .best = worst(options.mode)};
  return rate;
}

LearningRate LearningRate::function(std::function<double(std::uint64_t step)> factor) {
  require(factor != nullptr, "function", "factor", "empty", "a function of the step's number");
  return {"function", std::move(factor)};
}

double LearningRate::factor(std::uint64_t step) const {
  const double value = plateau_ ? plateau_->factor : curve_(step);
  if (!is_multiple(value)) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("the learning rate {} gives the factor {} for step {}; it must "
                            "be {}",
                            name_, value, step, kMultiple));
  }
  return value;
}

void LearningRate::observe(double metric) {
  if (!plateau_) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("the learning rate {} takes no metric: only plateau depends on one", name_));
  }
  Plateau& p = *plateau_;
  if (is_better(metric, p.best, p.options)) {
    p.best = metric;
    p.bad = 0;
  } else {
    ++p.bad;
  }
  if (p.cooling > 0) {
    --p.cooling;
    p.bad = 0;
  }
  if (p.bad > p.options.patience) {
    // The maximum alone is wrong: after a resume with a larger min_lr the factor may already be below it.
    p.factor = std::min(p.factor, std::max(p.factor * p.options.factor, p.options.min_lr));
    p.cooling = p.options.cooldown;
    p.bad = 0;
  }
}

nlohmann::json LearningRate::state() const {
  nlohmann::json state{{"schedule", name_}};
  if (plateau_) {
    state["plateau"] = {{"mode", to_string(plateau_->options.mode)},
                        {"factor", plateau_->factor},
                        {"best", plateau_->best},
                        {"bad", plateau_->bad},
                        {"cooling", plateau_->cooling}};
  }
  return encode_non_finite(state);  // `best` is infinite before the first observation
}

void LearningRate::set_state(const nlohmann::json& saved) {
  if (!saved.is_object()) misfit(fmt::format("is {}, where an object belongs", saved.dump()));
  text_in(saved, "schedule");
  if (!plateau_ || !saved.contains("plateau")) return;

  nlohmann::json state;
  try {
    state = decode_non_finite(saved["plateau"]);
  } catch (const Error& error) {
    misfit(fmt::format("cannot be read: {}", error.what()));
  }
  if (!state.is_object()) misfit(fmt::format("has {} as \"plateau\", where an object belongs", state.dump()));
  const auto mode = text_in(state, "mode");
  Plateau p{.options = plateau_->options,
            .factor = number_in(state, "factor"),
            .best = number_in(state, "best"),
            .bad = count_in(state, "bad"),
            .cooling = count_in(state, "cooling")};
  if (!is_part(p.factor)) misfit(fmt::format("has the factor {}; it must be {}", p.factor, kPart));
  if (std::isnan(p.best)) misfit("has nan as its best metric, which no metric can have become");
  if (mode != to_string(p.options.mode)) p.best = worst(p.options.mode);
  plateau_ = p;
}

std::string LearningRate::differences(const nlohmann::json& saved) const {
  const auto found = saved.is_object() ? saved.find("schedule") : saved.end();
  const bool said = found != saved.end() && found->is_string();
  const std::string then = said ? found->get<std::string>() : "not said";
  if (then == name_) return {};
  return fmt::format("the learning rate was {} when the checkpoint was saved and is {} in this program, which counts",
                     then, name_);
}

}  // namespace holdfast
