// The plateau schedule, and what a checkpoint holds of any schedule.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/optim/learning_rate.h"
#include "optim/curve_checks.h"

namespace holdfast {
namespace {

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
  if (!value.is_string()) misfit(fmt::format("has {} as \"{}\"; it must be a text", value.dump(), key));
  return value.get<std::string>();
}

double number_in(const nlohmann::json& state, const char* key) {
  const auto& value = field(state, key);
  if (!value.is_number()) misfit(fmt::format("has {} as \"{}\"; it must be a number", value.dump(), key));
  return value.get<double>();
}

std::uint64_t count_in(const nlohmann::json& state, const char* key) {
  const auto& value = field(state, key);
  if (!value.is_number_integer() || value < 0) {
    misfit(fmt::format("has {} as \"{}\"; it must be a whole number of 0 or more", value.dump(), key));
  }
  return value.get<std::uint64_t>();
}

}  // namespace

LearningRate LearningRate::plateau(const PlateauOptions& options) {
  const bool relative = options.threshold_mode == PlateauOptions::ThresholdMode::rel;
  require_parameter(options.factor >= 0 && options.factor < 1, "plateau", "factor", options.factor,
                    "at least 0 and below 1");
  require_multiple(options.threshold, "plateau", "threshold");
  require_parameter(!relative || options.mode == PlateauOptions::Mode::max || options.threshold < 1, "plateau",
                    "threshold", options.threshold,
                    "below 1 if it is relative and the mode is min, because otherwise no metric can ever be better");
  require_parameter(is_fraction(options.min_lr), "plateau", "min_lr", options.min_lr, kFractionRange);
  LearningRate rate(fmt::format("plateau({}, factor {}, patience {}, threshold {} {}, cooldown {}, min_lr {})",
                                to_string(options.mode), options.factor, options.patience, options.threshold,
                                to_string(options.threshold_mode), options.cooldown, options.min_lr),
                    nullptr);
  rate.plateau_ = Plateau{.options = options, .best = worst(options.mode)};
  return rate;
}

void LearningRate::observe(double metric) {
  if (!plateau_) {
    throw Error(storage::StatusCode::invalid,
                fmt::format("the learning rate {} does not use a metric; only plateau does", name_));
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
  return state;
}

void LearningRate::set_state(const nlohmann::json& saved) {
  if (!saved.is_object()) misfit(fmt::format("is {}; it must be an object", saved.dump()));
  text_in(saved, "schedule");
  if (!plateau_ || !saved.contains("plateau")) return;

  nlohmann::json state;
  try {
    // Checkpoints exist whose infinite `best` is encoded twice; what reads a checkpoint decodes it once.
    state = decode_non_finite(saved["plateau"]);
  } catch (const Error& error) {
    misfit(fmt::format("cannot be read: {}", error.what()));
  }
  if (!state.is_object()) misfit(fmt::format("has {} as \"plateau\"; it must be an object", state.dump()));
  const auto mode = text_in(state, "mode");
  Plateau p{.options = plateau_->options,
            .factor = number_in(state, "factor"),
            .best = number_in(state, "best"),
            .bad = count_in(state, "bad"),
            .cooling = count_in(state, "cooling")};
  if (!is_fraction(p.factor)) misfit(fmt::format("has the factor {}; it must be {}", p.factor, kFractionRange));
  if (std::isnan(p.best)) misfit("has nan as its best metric; it must be a number");
  if (mode != to_string(p.options.mode)) p.best = worst(p.options.mode);
  plateau_ = p;
}

std::string LearningRate::differences(const nlohmann::json& saved) const {
  const auto found = saved.is_object() ? saved.find("schedule") : saved.end();
  const bool is_known = found != saved.end() && found->is_string();
  const std::string then = is_known ? found->get<std::string>() : "of an unknown kind";
  if (then == name_) return {};
  return fmt::format(
      "the learning rate was {} when the checkpoint was saved and is {} in this program: the program's is used", then,
      name_);
}

}  // namespace holdfast
