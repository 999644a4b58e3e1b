// The C++ half of tests/python/learning_rate_test.py. Reads a JSON list of schedules from standard input and prints the
// list of their factors, to the last digit. Each schedule is an object with "kind", the maker's parameters by name, and
//
//   "steps": N                         the factors of the steps 0 to N - 1
//   "metrics": ["0.5", "nan", ...], "resume": N
//                                      of a plateau: its factor after each observation; after N of them a new
//                                      plateau takes over the state, as text, and continues
#include <cstdint>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "exact_json.h"
#include "holdfast/runtime/optim/learning_rate.h"

namespace {

using holdfast::decode_non_finite;
using holdfast::encode_non_finite;
using holdfast::LearningRate;
using nlohmann::json;

LearningRate plateau_of(const json& of) {
  using Options = holdfast::PlateauOptions;
  return LearningRate::plateau(
      {.mode = of["mode"] == "min" ? Options::Mode::min : Options::Mode::max,
       .factor = of["factor"],
       .patience = of["patience"],
       .threshold = of["threshold"],
       .threshold_mode = of["threshold_mode"] == "rel" ? Options::ThresholdMode::rel : Options::ThresholdMode::abs,
       .cooldown = of["cooldown"],
       .min_lr = of["min_lr"]});
}

LearningRate schedule_of(const json& of) {
  const std::string kind = of["kind"];
  if (kind == "constant") return LearningRate::constant();
  if (kind == "linear_warmup") return LearningRate::linear_warmup(of["warmup"]);
  if (kind == "warmup_cosine") return LearningRate::warmup_cosine(of["warmup"], of["total"], of["floor"]);
  if (kind == "cosine") return LearningRate::cosine(of["total"], of["floor"]);
  if (kind == "step") return LearningRate::step(of["every"], of["factor"]);
  if (kind == "multi_step") return LearningRate::multi_step(of["milestones"], of["factor"]);
  if (kind == "exponential") return LearningRate::exponential(of["factor"]);
  if (kind == "polynomial") return LearningRate::polynomial(of["total"], of["power"]);
  if (kind == "linear") return LearningRate::linear(of["from"], of["to"], of["total"]);
  if (kind == "plateau") return plateau_of(of);
  if (kind == "one_cycle") {
    using Anneal = holdfast::OneCycleOptions::Anneal;
    return LearningRate::one_cycle({.total = of["total"],
                                    .max_lr = of["max_lr"],
                                    .pct_start = of["pct_start"],
                                    .anneal = of["anneal"] == "cosine" ? Anneal::cosine : Anneal::linear,
                                    .div_factor = of["div_factor"],
                                    .final_div_factor = of["final_div_factor"],
                                    .three_phase = of["three_phase"]});
  }
  throw std::invalid_argument("unknown kind of schedule: " + kind);
}

json factors_of(const json& of) {
  LearningRate rate = schedule_of(of);
  json factors = json::array();
  if (rate.observes()) {
    for (const auto& metric : of["metrics"].get<std::vector<std::string>>()) {
      if (of["resume"] == factors.size()) {
        const std::string saved = encode_non_finite(rate.state()).dump();
        rate = schedule_of(of);
        rate.set_state(decode_non_finite(json::parse(saved)));
      }
      rate.observe(std::stod(metric));
      factors.push_back(rate.factor(0));
    }
  } else {
    for (std::uint64_t step = 0; step < of["steps"]; ++step) factors.push_back(rate.factor(step));
  }
  return factors;
}

}  // namespace

int main() try {
  json all = json::array();
  for (const json& of : json::parse(std::cin)) all.push_back(factors_of(of));
  std::cout << all << "\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
