// Values, generators and the user's own types are restored to the bit.
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "message_parts.h"
#include "state/save_and_restore.h"

using holdfast::RunState;
using holdfast::State;
using holdfast::storage::StatusCode;
using nlohmann::json;

namespace {

struct Counters {
  std::int64_t seen = 0;
  std::vector<double> best;
};
void to_json(json& j, const Counters& c) { j = {{"seen", c.seen}, {"best", c.best}}; }
void from_json(const json& j, Counters& c) {
  j.at("seen").get_to(c.seen);
  j.at("best").get_to(c.best);
}

struct Values {
  double lowest = 0, missing = 0, minus_zero = 1, tiny = 0, other_nan = 0;
  float third = 0;
  std::int8_t small = 0;
  std::uint64_t large = 0;
  std::int64_t negative = 0;
  bool flag = false;
  std::string text;
  Counters counters;
  json tree;
  std::map<std::string, int> map;
  std::mt19937 engine;
  std::mt19937_64 engine64{1};
  std::minstd_rand minimal;
  std::normal_distribution<double> normal;

  void track(RunState& state) {
    state.track("lowest", lowest).track("missing", missing).track("minus_zero", minus_zero).track("tiny", tiny);
    state.track("other_nan", other_nan).track("third", third).track("small", small).track("large", large);
    state.track("negative", negative).track("flag", flag).track("text", text).track("counters", counters);
    state.track("tree", tree).track("map", map).track("engine", engine).track("engine64", engine64);
    state.track("minimal", minimal).track("normal", normal);
  }
};

std::uint64_t bits(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

}  // namespace

TEST_CASE("values_are_restored_by_reference_bit_exactly") {
  constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  Values saved, loaded;
  saved.lowest = -inf;
  saved.missing = nan;
  saved.minus_zero = -0.0;
  saved.tiny = 5e-324;
  saved.other_nan = -std::nan("12345");
  saved.third = 1.0f / 3;
  saved.small = -128;
  saved.large = ~std::uint64_t{0};
  saved.negative = std::numeric_limits<std::int64_t>::min();
  saved.flag = true;
  saved.text = "grün \"quoted\" \n";
  saved.counters = {7, {0.1, nan, inf}};
  saved.tree = {{"$double", "not a number"}, {"list", {{{"$double", 1}}, {{"$$x", nan}}}}};
  saved.map = {{"a", 1}};
  loaded.map = {{"b", 2}};
  saved.engine.discard(700);
  saved.engine64.discard(3);
  saved.minimal.discard(3);
  saved.normal(saved.engine);  // keeps a second number for its next call
  RunState from, to;
  saved.track(from);
  loaded.track(to);
  carry(from, to);
  CHECK(loaded.lowest == -inf);
  CHECK(bits(loaded.missing) == bits(nan));
  CHECK(bits(loaded.minus_zero) == bits(-0.0));
  CHECK(loaded.tiny == 5e-324);
  CHECK(bits(loaded.other_nan) == bits(saved.other_nan));
  CHECK(loaded.third == saved.third);
  CHECK(loaded.small == -128);
  CHECK(loaded.large == saved.large);
  CHECK(loaded.negative == saved.negative);
  CHECK(loaded.flag);
  CHECK(loaded.text == saved.text);
  CHECK(loaded.counters.seen == 7);
  CHECK(bits(loaded.counters.best.at(1)) == bits(nan));
  CHECK(loaded.counters.best.at(2) == inf);
  CHECK(loaded.tree.at("$double") == "not a number");
  CHECK(loaded.tree.at("list").at(0) == json{{"$double", 1}});
  CHECK(bits(loaded.tree.at("list").at(1).at("$$x").get<double>()) == bits(nan));
  CHECK(loaded.map == saved.map);
  CHECK(loaded.normal(loaded.engine) == saved.normal(saved.engine));
  CHECK(loaded.engine() == saved.engine());
  CHECK(loaded.engine64() == saved.engine64());
  CHECK(loaded.minimal() == saved.minimal());
}

TEST_CASE("values_that_do_not_fit_are_found_before_anything_changes") {
  struct Limited {
    int at = 0;
    json state() const { return at; }
    void set_state(const json& state) { at = state; }
    void check_state(const json& state) const {
      if (state > 10) throw std::invalid_argument("is beyond 10");
    }
  };
  double real = 1.5;
  std::string text = "text";
  std::int64_t large = 1 << 20;
  std::int64_t minus = -1;
  Counters counters;
  Limited limited{11};
  std::mt19937 engine;
  RunState from;
  from.track("a", real).track("b", text).track("c", large).track("d", minus).track("e", counters).track("f", limited);
  from.track("g", engine);

  int whole = 0;
  bool flag = false;
  std::int8_t small = 0;
  std::uint64_t natural = 0;
  std::mt19937 other_engine;
  std::vector<int> list = {1};
  Limited other_limited;
  std::mt19937_64 wider;
  RunState to;
  to.track("a", whole).track("b", flag).track("c", small).track("d", natural).track("e", other_engine);
  to.track("f", other_limited).track("g", list);
  TrackedRun run;
  run.save(from);
  const auto fit = to.check(run.newest().manifest());
  REQUIRE(fit.differences.size() == 7);
  std::string names;
  for (const auto& difference : fit.differences) {
    names += difference.name;
    CHECK(difference.kind == holdfast::Difference::Kind::value);
  }
  CHECK(names == "abcdefg");
  CHECK(lacking(fit.differences[0].what, {"1.5", "whole number"}) == "");
  CHECK(lacking(fit.differences[1].what, {"\"text\"", "true or false"}) == "");
  CHECK(lacking(fit.differences[2].what, {"1048576", "range"}) == "");
  CHECK(lacking(fit.differences[3].what, {"-1"}) == "");
  CHECK(lacking(fit.differences[5].what, {"11", "is beyond 10"}) == "");
}

TEST_CASE("json_with_text_that_is_not_utf8_is_refused_with_its_name") {
  json text = "\xff";
  RunState state;
  state.track("text", text);
  CHECK_THAT(error_of([&] { state.capture(); }), ContainsSubstring("'text'") && ContainsSubstring("UTF-8"));
}

namespace {

struct Average {
  torch::Tensor mean = torch::zeros({3}), unset;
  double decay = 0;
  void save(State& state) const { state.put("mean", mean).put("unset", unset).put("decay", decay); }
  void load(const State& state) {
    state.get_to("mean", mean);
    state.get_to("unset", unset);
    state.get_to("decay", decay);
  }
};

struct Tracker {
  Average average;
  std::vector<torch::Tensor> history;
  std::string label;
  void save(State& state) const {
    state.put("average", average).put("label", label).put("size", history.size());
    State list = state.nested("history");
    for (std::size_t i = 0; i < history.size(); ++i) list.put(std::to_string(i), history[i]);
  }
  void load(const State& state) {
    state.get_to("average", average);
    state.get_to("label", label);
    history.clear();
    for (std::size_t i = 0; i < state.get<std::size_t>("size"); ++i) {
      history.push_back(state.nested("history").get<torch::Tensor>(std::to_string(i)));
    }
  }
};

struct Hopeful : Average {
  void load(const State& state) {
    Average::load(state);
    state.get<double>("more");
  }
};

}  // namespace

TEST_CASE("user_types_save_and_load_nested_tensors_and_values") {
  Tracker saved, loaded;
  saved.average.mean = torch::randn({3});
  saved.average.decay = std::numeric_limits<double>::infinity();
  saved.history = {torch::randn({2}), torch::randn({4, 1})};
  saved.label = "x";
  loaded.average.unset = torch::ones({1});
  loaded.average.mean.requires_grad_();
  RunState from, to;
  from.track("tracker", saved);
  to.track("tracker", loaded);
  const torch::Tensor in_place = loaded.average.mean;
  CHECK(bytes_of(from).tensors.contains("tracker.average.mean"));
  carry(from, to);
  CHECK(same_bytes(in_place, saved.average.mean));
  CHECK_FALSE(loaded.average.unset.defined());
  CHECK(loaded.average.decay == saved.average.decay);
  REQUIRE(loaded.history.size() == 2);
  CHECK(same_bytes(loaded.history[1], saved.history[1]));
  CHECK(loaded.label == "x");

  Hopeful hopeful;
  RunState other;
  other.track("tracker", hopeful);
  Average average;
  RunState plain;
  plain.track("tracker", average);
  const auto load = [&] { carry(plain, other); };
  CHECK(refusal_lacking(StatusCode::misfit, load, {"'tracker'", "value 'more'", "load()"}) == "");
  average.mean = torch::zeros({4});
  CHECK(refusal_lacking(StatusCode::misfit, load,
                        {"'tracker'", "'mean'", "F32 [3] in the program", "F32 [4] in the checkpoint"}) == "");
}

TEST_CASE("generators_are_restored_for_dropout") {
  torch::Generator own = at::detail::createCPUGenerator(5), other = at::detail::createCPUGenerator(6);
  RunState from, to;
  from.track("own", own);
  to.track("own", other);
  torch::randn({1});  // leaves a second normal number in the generator
  TrackedRun run;
  run.save(from);
  CHECK(other_parts(bytes_of(from), bytes_of(from)) == kNone);
  const auto dropped = torch::dropout(torch::ones({64}), 0.5, true);
  const auto normal = torch::randn({1}), drawn = torch::rand({4}, own);
  to.restore(run.newest());
  CHECK(same_bytes(torch::dropout(torch::ones({64}), 0.5, true), dropped));
  CHECK(same_bytes(torch::randn({1}), normal));
  CHECK(same_bytes(torch::rand({4}, other), drawn));
}

TEST_CASE("values_and_generators_change_only_after_every_digest_was_verified") {
  torch::Tensor x = torch::ones({100});
  double value = 1;
  Average average;
  RunState state;
  state.track("x", x).track("value", value).track("average", average);
  TrackedRun run;
  run.save(state);
  run.damage("x");
  value = 2;
  average.decay = 3;
  torch::rand({1});
  const auto generator = bytes_of(state).tensors.at("generator.cpu");
  CHECK_THAT(error_of([&] { state.restore(run.newest()); }), ContainsSubstring("digest"));
  CHECK(value == 2);
  CHECK(average.decay == 3);
  CHECK((bytes_of(state).tensors.at("generator.cpu") == generator));
}
