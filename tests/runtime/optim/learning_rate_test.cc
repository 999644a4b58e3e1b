#include "holdfast/runtime/optim/learning_rate.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "catch.h"
#include "exact_json.h"
#include "holdfast/runtime/error.h"
#include "message_parts.h"

// tests/python/learning_rate_test.py compares values over many steps and parameters with PyTorch's.
namespace {

using namespace holdfast;
using nlohmann::json;
using storage::StatusCode;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::uint64_t kForever = std::numeric_limits<std::uint64_t>::max();

// Equal up to rounding. Catch's own Approx has a different name in each of its versions.
struct Near {
  double value;
  friend bool operator==(double x, const Near& near) { return std::abs(x - near.value) <= 1e-12 * near.value; }
  friend std::ostream& operator<<(std::ostream& out, const Near& near) { return out << "nearly " << near.value; }
};
Near near(double value) { return {value}; }

template <class Action>
std::string invalid(Action action, std::initializer_list<std::string> parts) {
  return refusal_lacking(StatusCode::invalid, action, parts);
}

std::vector<double> observed(LearningRate& rate, const std::vector<double>& metrics) {
  std::vector<double> factors;
  for (const double metric : metrics) {
    rate.observe(metric);
    factors.push_back(rate.factor(0));
  }
  return factors;
}

}  // namespace

TEST_CASE("a_warm_up_gives_its_first_step_a_share_and_its_last_step_all") {
  const auto rate = LearningRate::linear_warmup(4);
  CHECK(rate.factor(0) == 0.25);
  CHECK(rate.factor(1) == 0.5);
  CHECK(rate.factor(2) == 0.75);
  CHECK(rate.factor(3) == 1);
  CHECK(rate.factor(4) == 1);
  CHECK(rate.factor(kForever) == 1);
  CHECK(LearningRate::linear_warmup(1).factor(0) == 1);
  CHECK(LearningRate::linear_warmup(0).factor(0) == 1);
  CHECK(LearningRate::warmup_cosine(0, 10).factor(0) == 1);
}

TEST_CASE("schedules_match_closed_forms_at_selected_steps") {
  const auto warmup_cosine = LearningRate::warmup_cosine(500, 20500, 0.1);
  CHECK(warmup_cosine.factor(0) == near(1.0 / 500));
  CHECK(warmup_cosine.factor(499) == 1);
  CHECK(warmup_cosine.factor(500) == near(1));
  CHECK(warmup_cosine.factor(10500) == near(0.55));  // halfway between 1 and the floor
  CHECK(LearningRate::warmup_cosine(7, 7).factor(6) == 1);

  const auto cosine = LearningRate::cosine(300);
  CHECK(cosine.factor(0) == 1);
  CHECK(cosine.factor(100) == near(0.75));  // (1 + cos 60°) / 2
  CHECK(cosine.factor(150) == near(0.5));
  CHECK(cosine.factor(200) == near(0.25));

  const auto step = LearningRate::step(30, 0.5);
  CHECK(step.factor(29) == 1);
  CHECK(step.factor(30) == 0.5);
  CHECK(step.factor(59) == 0.5);
  CHECK(step.factor(90) == 0.125);

  const auto multi_step = LearningRate::multi_step({30, 80}, 0.5);
  CHECK(multi_step.factor(29) == 1);
  CHECK(multi_step.factor(30) == 0.5);
  CHECK(multi_step.factor(79) == 0.5);
  CHECK(multi_step.factor(80) == 0.25);
  CHECK(LearningRate::multi_step({}, 0.5).factor(1000) == 1);

  CHECK(LearningRate::exponential(0.5).factor(0) == 1);
  CHECK(LearningRate::exponential(0.5).factor(10) == near(1.0 / 1024));
  CHECK(LearningRate::polynomial(100, 2).factor(75) == near(0.0625));
  CHECK(LearningRate::polynomial(100).factor(75) == near(0.25));
  CHECK(LearningRate::linear(0.2, 1, 10).factor(0) == 0.2);
  CHECK(LearningRate::linear(0.2, 1, 10).factor(5) == near(0.6));
  CHECK(LearningRate::constant().factor(12345) == 1);
}

TEST_CASE("a_cycle_rises_to_its_peak_and_falls_below_its_start") {
  OneCycleOptions options{.total = 100, .max_lr = 10, .pct_start = 0.3, .div_factor = 25, .final_div_factor = 1000};
  const auto two_phases = LearningRate::one_cycle(options);
  CHECK(two_phases.factor(0) == near(0.4));
  CHECK(two_phases.factor(29) == near(10));
  CHECK(two_phases.factor(64) == near((10 + 0.0004) / 2));  // halfway down from step 29 to step 99
  CHECK(two_phases.factor(99) == near(0.0004));

  options.three_phase = true;
  options.anneal = OneCycleOptions::Anneal::linear;
  const auto three_phases = LearningRate::one_cycle(options);
  CHECK(three_phases.factor(0) == near(0.4));
  CHECK(three_phases.factor(29) == near(10));
  CHECK(three_phases.factor(58) == near(0.4));
  CHECK(three_phases.factor(99) == near(0.0004));
}

TEST_CASE("a_cycle_has_a_rate_even_if_a_phase_has_no_steps") {
  // PyTorch divides by zero here.
  const auto short_rise = LearningRate::one_cycle({.total = 10, .pct_start = 0.1});
  CHECK(short_rise.factor(0) == 1);
  CHECK(short_rise.factor(9) == near(1 / 25e4));
  CHECK(LearningRate::one_cycle({.total = 1, .pct_start = 1}).factor(0) == 1);
  // PyTorch supports these.
  CHECK(LearningRate::one_cycle({.total = 1}).factor(0) == near(1 / 25e4));
  CHECK(LearningRate::one_cycle({.total = 10, .pct_start = 1}).factor(9) == near(1));
  CHECK(LearningRate::one_cycle({.total = 10, .pct_start = 0.5, .three_phase = true}).factor(9) == near(1 / 25e4));
}

TEST_CASE("steps_beyond_the_total_keep_the_last_value") {
  const auto cycle = LearningRate::one_cycle({.total = 50});
  for (const std::uint64_t step : {std::uint64_t{50}, std::uint64_t{51}, std::uint64_t{75}, kForever}) {
    CHECK(LearningRate::cosine(50, 0.25).factor(step) == 0.25);
    CHECK(LearningRate::warmup_cosine(10, 50, 0.25).factor(step) == 0.25);
    CHECK(LearningRate::warmup_cosine(50, 50).factor(step) == 0);
    CHECK(LearningRate::polynomial(50, 0.9).factor(step) == 0);
    CHECK(LearningRate::polynomial(50, 0).factor(step) == 1);
    CHECK(LearningRate::linear(0.3, 0.1, 50).factor(step) == 0.1);
    CHECK(LearningRate::multi_step({10, 49}, 0.5).factor(step) == 0.25);
    CHECK(cycle.factor(step) == cycle.factor(49));
  }
}

TEST_CASE("a_plateau_reduces_when_patience_is_over_and_then_cools_down") {
  auto rate = LearningRate::plateau({.factor = 0.5, .patience = 2, .cooldown = 2, .min_lr = 0.2});
  CHECK(rate.observes());
  CHECK(rate.factor(0) == 1);
  CHECK(observed(rate, {1.0, 0.9, 0.9, 0.9}) == std::vector<double>{1, 1, 1, 1});  // two bad values are tolerated
  CHECK(observed(rate, {0.9}) == std::vector{0.5});
  CHECK(observed(rate, {0.9, 0.9, 0.9, 0.9}) == std::vector{0.5, 0.5, 0.5, 0.5});  // two of these are in the cooldown
  CHECK(observed(rate, {0.9}) == std::vector{0.25});
  CHECK(observed(rate, {0.9, 0.9, 0.9, 0.9, 0.9}).back() == 0.2);
  CHECK(observed(rate, {0.9, 0.9, 0.9, 0.9, 0.9}).back() == 0.2);
  CHECK(rate.factor(kForever) == 0.2);
}

TEST_CASE("a_better_metric_exceeds_the_threshold_in_the_chosen_direction") {
  using Mode = PlateauOptions::Mode;
  using ThresholdMode = PlateauOptions::ThresholdMode;
  const auto reduces = [](Mode mode, ThresholdMode threshold_mode, double best, double next) {
    auto rate = LearningRate::plateau(
        {.mode = mode, .factor = 0.5, .patience = 0, .threshold = 0.25, .threshold_mode = threshold_mode});
    return observed(rate, {best, next}).back() == 0.5;
  };
  CHECK(reduces(Mode::min, ThresholdMode::rel, 8, 6.0));
  CHECK_FALSE(reduces(Mode::min, ThresholdMode::rel, 8, 5.9));
  CHECK(reduces(Mode::min, ThresholdMode::abs, 8, 7.75));
  CHECK_FALSE(reduces(Mode::min, ThresholdMode::abs, 8, 7.7));
  CHECK(reduces(Mode::max, ThresholdMode::rel, 8, 10.0));
  CHECK_FALSE(reduces(Mode::max, ThresholdMode::rel, 8, 10.1));
  CHECK(reduces(Mode::max, ThresholdMode::abs, 8, 8.25));
  CHECK_FALSE(reduces(Mode::max, ThresholdMode::abs, 8, 8.3));
  CHECK(reduces(Mode::min, ThresholdMode::abs, 8, kNan));
  CHECK(reduces(Mode::max, ThresholdMode::abs, 8, kNan));
}

TEST_CASE("a_plateau_resumed_at_any_step_continues_identically") {
  for (const auto mode : {PlateauOptions::Mode::min, PlateauOptions::Mode::max}) {
    const PlateauOptions options{.mode = mode, .factor = 0.3, .patience = 2, .cooldown = 3, .min_lr = 1e-3};
    std::vector<double> metrics;
    for (int i = 0; i < 60; ++i) metrics.push_back(2 + std::sin(i * i));
    metrics[7] = kNan;
    metrics[40] = kInfinity;  // from here on the best value in mode max

    auto uninterrupted = LearningRate::plateau(options);
    const auto expected = observed(uninterrupted, metrics);
    REQUIRE(expected.back() < 0.1);
    for (std::size_t stop = 0; stop <= metrics.size(); ++stop) {
      auto before = LearningRate::plateau(options);
      auto factors = observed(before, {metrics.begin(), metrics.begin() + stop});
      auto after = LearningRate::plateau(options);
      const auto saved = decode_non_finite(json::parse(encode_non_finite(before.state()).dump()));
      CHECK(after.differences(saved).empty());
      after.set_state(saved);
      CHECK(after.state() == before.state());
      for (const double factor : observed(after, {metrics.begin() + stop, metrics.end()})) factors.push_back(factor);
      CHECK(factors == expected);
    }
  }
}

TEST_CASE("an_infinite_best_metric_is_encoded_once_and_also_read_if_encoded_twice") {
  for (const char* best : {R"({"$double":"inf"})", R"({"$$double":"inf"})"}) {
    CAPTURE(best);
    json stored{
        {"schedule", "plateau(min)"},
        {"plateau", {{"mode", "min"}, {"factor", 0.5}, {"best", json::parse(best)}, {"bad", 0}, {"cooling", 0}}}};
    auto rate = LearningRate::plateau({.factor = 0.5, .patience = 0});
    rate.set_state(decode_non_finite(stored));
    stored["schedule"] = rate.name();
    stored["plateau"]["best"] = {{"$double", "inf"}};
    CHECK(encode_non_finite(rate.state()) == stored);
    CHECK(observed(rate, {3, 4}) == std::vector{0.5, 0.25});
  }
}

TEST_CASE("a_copy_of_a_schedule_observes_for_itself") {
  auto rate = LearningRate::plateau({.factor = 0.5, .patience = 0});
  rate.observe(1);
  auto copy = rate;
  copy.observe(2);
  CHECK(copy.factor(0) == 0.5);
  CHECK(rate.factor(0) == 1);
}

TEST_CASE("a_resume_with_edited_parameters_is_reported_and_uses_the_programs") {
  const auto saved = LearningRate::warmup_cosine(500, 20000).state();
  auto edited = LearningRate::warmup_cosine(500, 30000, 0.1);
  CHECK(lacking(edited.differences(saved),
                {"was warmup_cosine(500, 20000)", "is warmup_cosine(500, 30000, 0.1) in this program"}) == "");
  edited.set_state(saved);
  CHECK(edited.factor(30000) == 0.1);
  CHECK(LearningRate::warmup_cosine(500, 20000).differences(saved).empty());
  CHECK(lacking(LearningRate::constant().differences(json{{"epoch", 3}}), {"constant() in this program"}) == "");

  auto old = LearningRate::plateau({.factor = 0.5, .patience = 0});
  observed(old, {1, 2, 2});
  auto edited_plateau = LearningRate::plateau({.factor = 0.1, .patience = 1, .min_lr = 0.5});
  edited_plateau.set_state(old.state());
  CHECK(edited_plateau.factor(0) == 0.25);
  CHECK(observed(edited_plateau, {2, 2, 2, 2}).back() == 0.25);  // a larger min_lr does not raise the rate
}

TEST_CASE("another_schedules_state_leaves_a_plateau_in_its_initial_state") {
  auto rate = LearningRate::plateau({.factor = 0.5, .patience = 0});
  rate.set_state(LearningRate::cosine(100).state());
  CHECK(observed(rate, {1, 2}) == std::vector{1, 0.5});

  auto cosine = LearningRate::cosine(100);
  cosine.set_state(rate.state());
  CHECK_FALSE(cosine.observes());
  CHECK(cosine.factor(50) == near(0.5));

  auto smaller = LearningRate::plateau({.factor = 0.5, .patience = 0});
  observed(smaller, {0.5, 1});
  auto larger = LearningRate::plateau({.mode = PlateauOptions::Mode::max, .factor = 0.5, .patience = 0});
  larger.set_state(smaller.state());
  CHECK(observed(larger, {0.1, 0.2}) == std::vector{0.5, 0.5});  // the first value is the best, not worse than 0.5
}

TEST_CASE("every_parameter_is_in_the_name") {
  CHECK(LearningRate::constant().name() == "constant()");
  CHECK(LearningRate::linear_warmup(500).name() == "linear_warmup(500)");
  CHECK(LearningRate::warmup_cosine(500, 20000).name() == "warmup_cosine(500, 20000)");
  CHECK(LearningRate::warmup_cosine(500, 20000, 0.1).name() == "warmup_cosine(500, 20000, 0.1)");
  CHECK(LearningRate::cosine(20000, 1e-5).name() == "cosine(20000, 1e-05)");
  CHECK(LearningRate::step(30, 0.1).name() == "step(30, 0.1)");
  CHECK(LearningRate::multi_step({30, 80}, 0.1).name() == "multi_step({30, 80}, 0.1)");
  CHECK(LearningRate::exponential(0.999).name() == "exponential(0.999)");
  CHECK(LearningRate::polynomial(100, 0.9).name() == "polynomial(100, 0.9)");
  CHECK(LearningRate::linear(0.1, 1, 100).name() == "linear(0.1, 1, 100)");
  CHECK(LearningRate::one_cycle({.total = 100}).name() ==
        "one_cycle(total 100, max_lr 1, pct_start 0.3, cosine, div_factor 25, final_div_factor 10000)");
  CHECK(
      LearningRate::one_cycle({.total = 100, .anneal = OneCycleOptions::Anneal::linear, .three_phase = true}).name() ==
      "one_cycle(total 100, max_lr 1, pct_start 0.3, linear, div_factor 25, final_div_factor 10000, three_phase)");
  CHECK(LearningRate::plateau().name() ==
        "plateau(min, factor 0.1, patience 10, threshold 0.0001 rel, cooldown 0, min_lr 0)");
  CHECK(LearningRate::function([](std::uint64_t) { return 1.0; }).name() == "function");
}

TEST_CASE("impossible_parameters_are_refused_by_name_value_and_remedy") {
  using L = LearningRate;
  CHECK(invalid([] { L::cosine(0); }, {"cosine", "total", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::cosine(10, 1.5); }, {"cosine", "floor", "1.5", "from 0 to 1"}) == "");
  CHECK(invalid([] { L::warmup_cosine(0, 0); }, {"warmup_cosine", "total", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::warmup_cosine(300, 200); }, {"warmup_cosine", "warmup", "300", "total", "200"}) == "");
  CHECK(invalid([] { L::warmup_cosine(1, 200, kNan); }, {"warmup_cosine", "floor", "nan", "from 0 to 1"}) == "");
  CHECK(invalid([] { L::step(0, 0.1); }, {"step", "every", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::step(1, -0.5); }, {"step", "factor", "-0.5", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::multi_step({30, 80, 80}, 0.1); }, {"multi_step", "milestones[2]", "80"}) == "");
  CHECK(invalid([] { L::multi_step({30}, kInfinity); }, {"multi_step", "factor", "inf", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::exponential(kNan); }, {"exponential", "factor", "nan", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::polynomial(0, 1); }, {"polynomial", "total", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::polynomial(9, -1); }, {"polynomial", "power", "-1", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::linear(-1, 1, 10); }, {"linear", "from", "-1", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::linear(0, kNan, 10); }, {"linear", "to", "nan", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::linear(0, 1, 0); }, {"linear", "total", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::one_cycle({}); }, {"one_cycle", "total", "0", "at least 1"}) == "");
  CHECK(invalid([] { L::one_cycle({.total = 9, .max_lr = 0}); }, {"one_cycle", "max_lr", "0", "finite", "above 0"}) ==
        "");
  CHECK(invalid([] { L::one_cycle({.total = 9, .pct_start = 30}); }, {"one_cycle", "pct_start", "30", "from 0 to 1"}) ==
        "");
  CHECK(invalid([] { L::one_cycle({.total = 9, .pct_start = 0.6, .three_phase = true}); },
                {"one_cycle", "pct_start", "0.6", "0.5", "three_phase"}) == "");
  CHECK(invalid([] { L::one_cycle({.total = 9, .div_factor = -25}); },
                {"one_cycle", "div_factor", "-25", "finite", "above 0"}) == "");
  CHECK(invalid([] { L::one_cycle({.total = 9, .final_div_factor = kNan}); },
                {"one_cycle", "final_div_factor", "nan", "finite", "above 0"}) == "");
  CHECK(invalid([] { L::plateau({.factor = 1}); }, {"plateau", "factor", "1", "at least 0", "below 1"}) == "");
  CHECK(invalid([] { L::plateau({.threshold = -1}); }, {"plateau", "threshold", "-1", "finite", "at least 0"}) == "");
  CHECK(invalid([] { L::plateau({.threshold = 1}); }, {"plateau", "threshold", "below 1", "relative", "min"}) == "");
  CHECK(invalid([] { L::plateau({.min_lr = 2}); }, {"plateau", "min_lr", "2", "from 0 to 1"}) == "");
  CHECK(invalid([] { L::function(nullptr); }, {"function", "factor", "empty"}) == "");
}

TEST_CASE("a_factor_that_no_optimizer_can_use_is_refused_with_the_step") {
  const auto mine = LearningRate::function([](std::uint64_t step) { return step < 5 ? 0.5 : kNan; });
  CHECK(mine.factor(4) == 0.5);
  CHECK(invalid([&] { mine.factor(5); }, {"function", "factor nan", "step 5", "finite", "at least 0"}) == "");
  CHECK(invalid([&] { LearningRate::exponential(2).factor(1024); },
                {"exponential(2)", "factor inf", "step 1024", "finite", "at least 0"}) == "");
}

TEST_CASE("only_a_plateau_takes_a_metric") {
  auto rate = LearningRate::cosine(100);
  CHECK_FALSE(rate.observes());
  CHECK(invalid([&] { rate.observe(0.5); }, {"cosine(100)", "metric", "plateau"}) == "");
}

TEST_CASE("invalid_state_of_a_schedule_is_refused_and_changes_nothing") {
  auto rate = LearningRate::plateau({.factor = 0.5, .patience = 1, .cooldown = 1});
  observed(rate, {3, 4, 5, 5, 2, 2});
  const auto before = rate.state();
  const auto broken = [&](const json& patch, std::initializer_list<std::string> parts) {
    json state = before;
    state.merge_patch(patch);
    const auto lacks = refusal_lacking(
        StatusCode::misfit, [&] { rate.set_state(state); }, parts);
    CHECK(rate.state() == before);
    return lacks;
  };
  CHECK(broken(3, {"3", "object"}) == "");
  CHECK(broken({{"schedule", nullptr}}, {"\"schedule\""}) == "");
  CHECK(broken({{"schedule", 7}}, {"7", "\"schedule\"", "text"}) == "");
  CHECK(broken({{"plateau", 7}}, {"7", "\"plateau\"", "object"}) == "");
  CHECK(broken({{"plateau", {{"mode", 1}}}}, {"1", "\"mode\"", "text"}) == "");
  CHECK(broken({{"plateau", {{"best", "low"}}}}, {"\"low\"", "\"best\"", "number"}) == "");
  CHECK(broken({{"plateau", {{"best", {{"$double", "nan"}}}}}}, {"nan", "best metric"}) == "");
  CHECK(broken({{"plateau", {{"best", {{"$double", "low"}}}}}}, {"\"low\"", "\"$double\""}) == "");
  CHECK(broken({{"plateau", {{"factor", 1.5}}}}, {"factor", "1.5", "from 0 to 1"}) == "");
  CHECK(broken({{"plateau", {{"bad", -1}}}}, {"-1", "\"bad\"", "whole number"}) == "");
  CHECK(broken({{"plateau", {{"cooling", 0.5}}}}, {"0.5", "\"cooling\"", "whole number"}) == "");
}
