// Tracked state is restored to the bit. State that does not fit is refused completely, before anything is overwritten.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>

#include "exact_json.h"
#include "tensors/dtype.h"
#include "tracked_run.h"

using Catch::Matchers::Contains;
using holdfast::Difference;
using holdfast::RunState;
using holdfast::State;
using nlohmann::json;

namespace {

/// Compares raw bytes, so that NaNs can be equal.
bool same_bytes(const torch::Tensor& a, const torch::Tensor& b) {
  const auto x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

torch::nn::Sequential make_net(int hidden = 3) {
  return torch::nn::Sequential(torch::nn::Linear(2, hidden), torch::nn::BatchNorm1d(hidden));
}

/// Saves `from` and restores it into `to`.
holdfast::Restored carry(const RunState& from, RunState& to, const holdfast::LoosenOptions& loosen = {}) {
  TrackedRun run;
  run.save(from);
  return to.restore(run.newest(), loosen);
}

}  // namespace

TEST_CASE("buffers_come_back") {
  auto net = make_net(), other = make_net();
  for (int i = 0; i < 3; ++i) net->forward(torch::randn({8, 2}));
  RunState from, to;
  from.track("net", net);
  to.track("net", other);
  carry(from, to);
  const auto buffers = other->named_buffers();
  CHECK(buffers["1.num_batches_tracked"].item<std::int64_t>() == 3);
  for (const auto& buffer : net->named_buffers()) CHECK(same_bytes(buffer.value(), buffers[buffer.key()]));
}

TEST_CASE("modules_are_tracked_as_holder_pointer_or_reference_and_walked_anew") {
  auto net = make_net();
  auto pointer = std::make_shared<torch::nn::LinearImpl>(2, 2);
  torch::nn::LinearImpl plain(3, 3);
  RunState state;
  state.track("net", net).track("pointer", pointer).track("plain", plain);
  state.track("moved", std::make_shared<torch::nn::LinearImpl>(1, 1));
  net->to(torch::kDouble);  // replaces the tensors' storage
  plain.register_parameter("more", torch::ones({5}));
  const auto bytes = bytes_of(state);
  CHECK(bytes.tensors.at("net.0.weight").size() == 6 * 8);
  CHECK(std::memcmp(bytes.tensors.at("plain.weight").data(), plain.weight.const_data_ptr(), 36) == 0);
  CHECK(bytes.tensors.at("plain.more").size() == 20);
  CHECK(bytes.tensors.contains("moved.bias"));
}

TEST_CASE("what_is_saved_and_restored_into_is_what_the_variable_holds_now") {
  const auto make = [] { return std::make_shared<torch::nn::LinearImpl>(2, 1); };
  auto shared = make(), shared2 = make();
  auto unique = std::make_unique<torch::nn::LinearImpl>(2, 1), unique2 = std::make_unique<torch::nn::LinearImpl>(2, 1);
  torch::nn::Linear holder(2, 1), holder2(2, 1);
  std::optional<torch::nn::LinearImpl> optional(std::in_place, 2, 1), optional2(std::in_place, 2, 1);
  RunState from, to;
  from.track("shared", shared).track("unique", unique).track("holder", holder).track("optional", optional);
  to.track("shared", shared2).track("unique", unique2).track("holder", holder2).track("optional", optional2);
  from.begin();

  shared = std::dynamic_pointer_cast<torch::nn::LinearImpl>(make()->clone());  // like a target network
  unique = std::make_unique<torch::nn::LinearImpl>(2, 1);
  holder = torch::nn::Linear(2, 1);
  optional.emplace(2, 1);
  shared2 = make();
  holder2 = torch::nn::Linear(2, 1);
  CHECK(from.tracks(*shared));
  CHECK(from.tracks(*holder));
  CHECK_FALSE(from.tracks(*shared2));
  carry(from, to);
  CHECK(same_bytes(shared2->weight, shared->weight));
  CHECK(same_bytes(unique2->weight, unique->weight));
  CHECK(same_bytes(holder2->weight, holder->weight));
  CHECK(same_bytes(optional2->weight, optional->weight));
}

TEST_CASE("a_pointer_that_holds_nothing_is_refused_by_name_when_it_is_saved_or_restored") {
  auto target = std::make_shared<torch::nn::LinearImpl>(2, 1), missing = target;
  missing.reset();
  torch::nn::Linear empty{nullptr};
  RunState state;
  CHECK_THAT(error_of([&] { state.track("none", missing); }), Contains("module 'none' is null"));
  CHECK_THAT(error_of([&] { state.track("none", empty); }), Contains("module 'none' is null"));
  state.track("target", target);
  TrackedRun run;
  run.save(state);
  target.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), Contains("module 'target' is null"));
  CHECK_THAT(error_of([&] { state.restore(run.newest()); }), Contains("module 'target' is null"));
}

TEST_CASE("an_object_is_tracked_once_whichever_way_it_is_given") {
  auto net = std::make_shared<torch::nn::LinearImpl>(2, 1), same = net;
  RunState state;
  state.track("net", net);
  CHECK_THAT(error_of([&] { state.track("again", *net); }), Contains("tracked as 'net' already"));
  CHECK_THAT(error_of([&] { state.track("again", same); }), Contains("tracked as 'net' already"));
  CHECK_THAT(error_of([&] { state.track("again", net); }), Contains("tracked as 'net' already"));
}

TEST_CASE("untracked_items_are_forgotten_and_their_names_are_free") {
  auto net = std::make_shared<torch::nn::LinearImpl>(2, 1);
  double value = 1;
  RunState state;
  state.track("net", net).track("value", value).track("owned", std::make_shared<torch::nn::LinearImpl>(1, 1));
  const auto variables = state.variables();
  REQUIRE(variables.size() == 3);
  CHECK(variables[0].name == "net");
  CHECK(variables[0].address == &net);
  CHECK(variables[1].address == &value);
  CHECK(variables[2].address == nullptr);

  state.untrack("net");
  state.untrack("value");
  CHECK_FALSE(bytes_of(state).tensors.contains("net.weight"));
  CHECK_FALSE(state.tracks(*net));
  state.track("value", net).track("net", value);
  CHECK(bytes_of(state).tensors.contains("value.weight"));
  CHECK_THAT(error_of([&] { state.untrack("valeu"); }), Contains("'valeu'") && Contains("'value'"));
}

TEST_CASE("names_that_end_as_those_of_a_rank_do_come_back") {
  const std::vector<std::string> names = {"w", "w@", "w@1", "w@1@", "w@1@@", "w@1@2", "@3", "w@x"};
  struct Net : torch::nn::Module {
    explicit Net(const std::vector<std::string>& names) {
      for (const auto& name : names) register_parameter(name, torch::randn({2}));
      register_parameter("tied@4", named_parameters()["w@1"]);
      register_buffer("b@1", torch::randn({2}));
    }
  } saved(names), loaded(names);
  double value = 1, other_value = 0;
  torch::optim::SGD optimizer(saved.parameters(), 0.1), other_optimizer(loaded.parameters(), 0.1);
  RunState from, to({.rank = 1, .world_size = 2});
  from.track("net", saved).track("x@7", value).track("sgd@1", optimizer);
  to.track("net", loaded).track("x@7", other_value).track("sgd@1", other_optimizer);
  auto captured = from.capture();
  CHECK(captured.values.contains("x@7@"));
  captured.values["x@7@@1"] = 2;  // rank 1's part
  TrackedRun run;
  run.save(std::move(captured));
  CHECK(to.restore(run.newest()).notes.empty());
  CHECK(other_value == 2);
  for (const auto& name : names) CHECK(same_bytes(saved.named_parameters()[name], loaded.named_parameters()[name]));
  CHECK(same_bytes(saved.named_buffers()["b@1"], loaded.named_buffers()["b@1"]));
}

TEST_CASE("tied_parameters_are_stored_once_and_stay_tied") {
  struct Tied : torch::nn::Module {
    Tied() {
      encoder = register_parameter("encoder", torch::randn({3, 4}));
      decoder = register_parameter("decoder", encoder);
      half = register_buffer("half", encoder.detach().slice(0, 0, 2));  // overlaps partly
      turned = register_buffer("turned", encoder.detach().t());         // the same bytes in another order
      row = register_buffer("row", encoder.detach().view({12}).slice(0, 4, 8));
    }
    torch::Tensor encoder, decoder, half, turned, row;
  } saved, loaded;
  torch::Tensor outside = saved.encoder, outside_loaded = loaded.encoder;
  RunState from, to;
  from.track("net", saved).track("outside", outside);
  to.track("net", loaded).track("outside", outside_loaded);
  const auto captured = from.capture();
  CHECK(captured.tied ==
        std::map<std::string, std::string>{{"net.decoder", "net.encoder"}, {"outside", "net.encoder"}});
  CHECK(std::count_if(captured.tensors.begin(), captured.tensors.end(),
                      [](const holdfast::storage::TensorSource& tensor) {
                        return tensor.name.starts_with("net.") || tensor.name == "outside";
                      }) == 4);  // encoder, half, turned, row
  carry(from, to);
  CHECK(same_bytes(saved.encoder, loaded.encoder));
  CHECK(same_bytes(saved.half, loaded.half));
  CHECK(same_bytes(saved.turned, loaded.turned));
  CHECK(loaded.decoder.is_same(loaded.encoder));
  CHECK(loaded.half.const_data_ptr() == loaded.encoder.const_data_ptr());
}

TEST_CASE("tensors_tied_on_one_side_only_load_where_their_values_agree") {
  torch::Tensor a = torch::ones({2}), b = a, c = torch::zeros({2}), d = torch::zeros({2});
  RunState tied, separate;
  tied.track("x", a).track("y", b);
  separate.track("x", c).track("y", d);
  carry(tied, separate);
  CHECK(torch::equal(c, torch::ones({2})));
  CHECK(torch::equal(d, torch::ones({2})));
  CHECK_FALSE(c.is_same(d));
  carry(separate, tied);

  d.fill_(2);
  TrackedRun run;
  run.save(separate);
  CHECK_THAT(error_of([&] { tied.restore(run.newest()); }),
             Contains("y is tied to x in the program, and has other values than it in the checkpoint"));
}

TEST_CASE("every_dtype_of_a_checkpoint_comes_back_to_the_bit") {
  CHECK(holdfast::storage::all_dtypes().size() == 19);
  for (const auto dtype : holdfast::storage::all_dtypes()) {
    const auto type = holdfast::to_scalar_type(dtype);
    INFO(c10::toString(type));
    REQUIRE(holdfast::to_dtype(type) == dtype);
    REQUIRE(c10::elementSize(type) == element_size(dtype));
    const auto width = static_cast<std::int64_t>(element_size(dtype));
    const std::int64_t limit = dtype == holdfast::storage::Dtype::boolean ? 2 : 256;
    auto bits = torch::randint(limit, {6 * width}, torch::kByte);
    // Arbitrary bits, including NaNs with payloads and subnormals: one plain, one transposed, one scalar, one empty.
    torch::Tensor plain = bits.view(type).view({2, 3}), turned = plain.clone().t(), scalar = plain.flatten()[1].clone();
    torch::Tensor empty = torch::empty({0, 3}, type);
    torch::Tensor plain2 = torch::zeros({6 * width}, torch::kByte).view(type).view({2, 3});
    torch::Tensor turned2 = plain2.clone().t(), scalar2 = plain2.flatten()[0].clone(),
                  empty2 = torch::empty({0, 3}, type);
    RunState from, to;
    from.track("plain", plain).track("turned", turned).track("scalar", scalar).track("empty", empty);
    to.track("plain", plain2).track("turned", turned2).track("scalar", scalar2).track("empty", empty2);
    carry(from, to);
    CHECK(std::memcmp(plain.const_data_ptr(), plain2.const_data_ptr(), plain.nbytes()) == 0);
    CHECK(std::memcmp(turned.const_data_ptr(), turned2.const_data_ptr(), plain.nbytes()) == 0);
    CHECK(std::memcmp(scalar.const_data_ptr(), scalar2.const_data_ptr(), width) == 0);
    CHECK(turned2.stride(0) == 1);
  }
}

TEST_CASE("strided_tensors_are_read_in_any_pieces_and_row_major") {
  // An index of the first dimension is 18 MB: larger than the copy buffer, whose size its rows do not divide.
  torch::Tensor whole = torch::arange(2 * 2300 * 2001, torch::kInt).view({2, 2300, 2001});
  torch::Tensor cut = whole.slice(2, 1, 2001), turned = whole.permute({2, 0, 1}), tiny = whole.slice(1, 0, 2300, 500);
  RunState state;
  state.track("cut", cut).track("turned", turned).track("tiny", tiny);
  for (const std::size_t piece : {std::size_t{1} << 18, std::size_t{1000003}, std::size_t{1} << 30}) {
    const auto bytes = bytes_of(state, piece);
    for (const auto& [name, tensor] : {std::pair("cut", cut), std::pair("turned", turned), std::pair("tiny", tiny)}) {
      const auto rows = tensor.contiguous();
      REQUIRE(bytes.tensors.at(name).size() == rows.nbytes());
      CHECK(std::memcmp(bytes.tensors.at(name).data(), rows.const_data_ptr(), rows.nbytes()) == 0);
    }
  }
}

TEST_CASE("conjugate_views_keep_their_values") {
  torch::Tensor base = torch::randn({2, 3}, torch::kComplexFloat), view = base.conj();
  torch::Tensor base2 = torch::zeros({2, 3}, torch::kComplexFloat), view2 = base2.conj();
  RunState from, to;
  from.track("base", base).track("view", view);
  to.track("base", base2).track("view", view2);
  CHECK(from.capture().tied.empty());
  carry(from, to);
  CHECK(torch::equal(base, base2));
  CHECK(torch::equal(view, view2));
}

TEST_CASE("what_a_checkpoint_cannot_hold_is_refused_in_a_sentence") {
  auto refusal = [](torch::Tensor tensor) {
    RunState state;
    state.track("x", tensor);
    return error_of([&] { state.capture(); });
  };
  CHECK(
      refusal(torch::zeros({2}, torch::kComplexDouble)) ==
      "tensor 'x' cannot be saved: safetensors has no name for dtype ComplexDouble; keep it in another dtype (complex "
      "as two real tensors, quantized as its integers)");
  CHECK_THAT(refusal(torch::zeros({2}, torch::kComplexHalf)), Contains("ComplexHalf"));
  CHECK_THAT(refusal(torch::quantize_per_tensor(torch::ones({2}), 0.1, 0, torch::kQInt8)), Contains("QInt8"));
  CHECK_THAT(refusal(torch::eye(2).to_sparse()), Contains("'x'") && Contains("sparse") && Contains("to_dense()"));
  CHECK_THAT(refusal(torch::empty({2}, torch::kMeta)), Contains("meta"));
  CHECK_THAT(refusal(torch::ones({1, 3}).expand({2, 3})), Contains("expand()"));
  CHECK(refusal(torch::ones({1, 3}).expand({1, 3})).empty());
}

TEST_CASE("names_are_unique_and_objects_tracked_once") {
  torch::nn::Linear net(2, 2), other(2, 2);
  double x = 0, y = 0;
  RunState state;
  state.track("net", net).track("x", x);
  CHECK(error_of([&] { state.track("net", other); }) == "'net' is tracked already: choose another name");
  CHECK(error_of([&] { state.track("again", *net); }) ==
        "'again' is the object that is tracked as 'net' already: track it once");
  CHECK_THAT(error_of([&] { state.track("again", x); }), Contains("tracked as 'x'"));
  CHECK_THAT(error_of([&] { state.track("", y); }), Contains("not empty"));
  CHECK_THAT(error_of([&] { state.track("\xff", y); }), Contains("UTF-8"));
  CHECK_THAT(error_of([&] { state.track("__metadata__", y); }), Contains("__metadata__"));
  torch::Tensor weight = torch::ones({2});
  state.track("net.weight", weight);
  CHECK_THAT(error_of([&] { state.capture(); }), Contains("two tracked tensors are called 'net.weight'"));
}

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

TEST_CASE("values_come_back_by_reference_to_the_bit") {
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
  CHECK(fit.differences[0].what == "a cannot be set to the checkpoint's 1.5: it is not a whole number");
  CHECK(fit.differences[1].what == "b cannot be set to the checkpoint's \"text\": it is not true or false");
  CHECK(fit.differences[2].what ==
        "c cannot be set to the checkpoint's 1048576: it is outside the range of the program's integer type");
  CHECK_THAT(fit.differences[3].what, Contains("d cannot be set to the checkpoint's -1"));
  CHECK_THAT(fit.differences[4].what, Contains("e cannot be set"));
  CHECK(fit.differences[5].what == "f cannot be set to the checkpoint's 11: it is beyond 10");
  CHECK_THAT(fit.differences[6].what, Contains("g cannot be set"));
}

TEST_CASE("a_tensor_whose_saved_value_makes_no_sense_is_a_difference_with_its_name") {
  torch::Tensor held = torch::ones({2}), other = torch::ones({2}), flag = torch::ones({2}, torch::requires_grad());
  RunState from;
  from.track("held", held).track("other", other).track("flag", flag);
  TrackedRun run;
  run.save(from);
  holdfast::storage::Manifest manifest = run.newest().manifest();
  manifest.values["held"] = "abacus:7";
  manifest.values["other"] = {{"device", 5}};
  manifest.values["flag"] = {{"device", "cpu"}, {"requires_grad", "often"}};

  torch::Tensor undefined, none, present = torch::zeros({2}, torch::requires_grad());
  RunState to;
  to.track("held", undefined).track("other", none).track("flag", present);
  const auto fit = to.check(manifest);
  REQUIRE(fit.differences.size() == 3);
  CHECK(fit.differences[0].what == "flag is a tensor in the program and something else in the checkpoint");
  CHECK(fit.differences[1].what == "held was saved on the device \"abacus:7\", which LibTorch does not know");
  CHECK(fit.differences[2].what == "other is a tensor in the program and something else in the checkpoint");
}

TEST_CASE("a_module_that_was_tracked_itself_and_is_gone_is_refused_by_its_name") {
  auto net = std::make_shared<torch::nn::LinearImpl>(1, 1);
  RunState state;
  state.track("net", *net);
  TrackedRun run;
  run.save(state);
  net = std::make_shared<torch::nn::LinearImpl>(1, 1);
  CHECK_THROWS_WITH(run.save(state), Contains("'net' was tracked as an object that a shared_ptr held, and is gone"));
}

TEST_CASE("json_with_text_that_is_not_utf8_is_refused_with_its_name") {
  json text = "\xff";
  RunState state;
  state.track("text", text);
  CHECK_THAT(error_of([&] { state.capture(); }), Contains("'text'") && Contains("UTF-8"));
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
  CHECK(error_of([&] { carry(plain, other); }) ==
        "'tracker' did not load: the checkpoint holds no value 'more' that load() asks for");
  average.mean = torch::zeros({4});
  CHECK_THAT(error_of([&] { carry(plain, other); }),
             Contains("tensor 'mean' is Float [3] in the program and Float [4] in the checkpoint"));
}

TEST_CASE("generators_come_back_with_dropout") {
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

TEST_CASE("the_generator_of_a_missing_device_is_noted_and_no_misfit") {
  if (torch::cuda::device_count() > 0) return;
  torch::Tensor state = torch::zeros({16}, torch::kByte);
  RunState from, to;
  from.track("generator.cuda0", state);
  TrackedRun run;
  run.save(from);
  const auto restored = to.restore(run.newest(), {.allow_missing = {}, .allow_unexpected = {"generator.cuda0"}});
  CHECK(restored.notes.front() == "generator.cuda0 is left unread: this machine has 0 CUDA devices");
}

TEST_CASE("tensor_variables_may_be_assigned_anew_or_be_undefined") {
  torch::Tensor x, y, z = torch::ones({2});
  RunState from, to;
  torch::Tensor a = torch::ones({3}), b, c = torch::zeros({2});
  from.track("x", a).track("y", b).track("z", c);
  to.track("x", x).track("y", y).track("z", z);
  c = torch::full({2}, 5);
  c = c.to(torch::kFloat);
  carry(from, to);
  CHECK(torch::equal(x, a));
  CHECK_FALSE(y.defined());
  CHECK(torch::equal(z, torch::full({2}, 5.0f)));
}

TEST_CASE("tensor_variables_take_the_shape_and_dtype_that_were_saved") {
  torch::Tensor grown = torch::zeros({0, 2}), cast = torch::zeros({3}), edited = torch::zeros({4}), same = grown;
  torch::Tensor grown2 = grown.clone(), cast2 = cast.clone(), edited2 = torch::zeros({8}, torch::requires_grad()),
                same2 = grown2;
  RunState from, to;
  torch::Tensor gone = torch::ones({2}), gone2 = gone.clone();
  from.track("grown", grown).track("cast", cast).track("edited", edited).track("same", same).track("gone", gone);
  to.track("grown", grown2).track("cast", cast2).track("edited", edited2).track("same", same2).track("gone", gone2);
  from.begin();
  same = grown = torch::cat({grown, torch::randn({3, 2})});
  cast = torch::ones({3}, torch::kInt);
  gone.reset();
  TrackedRun run;
  run.save(from);
  const auto notes = to.restore(run.newest()).notes;
  CHECK(same_bytes(grown2, grown));
  CHECK(same_bytes(cast2, cast));
  CHECK(same_bytes(edited2, edited));
  CHECK(edited2.requires_grad());
  CHECK(same2.is_same(grown2));
  CHECK_FALSE(gone2.defined());
  REQUIRE(notes.size() == 2);
  CHECK(notes[0] ==
        "edited is F32 [8] in the code and was F32 [4] when the run began: it takes the checkpoint's F32 [4]");
  CHECK_THAT(notes[1], Contains("edited: code says it requires a gradient"));
  TrackedRun next;
  next.save(to);
  RunState again;
  torch::Tensor grown3 = torch::zeros({0, 2}), cast3 = torch::zeros({3});
  again.track("grown", grown3).track("cast", cast3);
  CHECK(again.restore(next.newest(), {.allow_missing = {}, .allow_unexpected = {"edited", "same", "gone"}})
            .notes.size() == 3);
  CHECK(same_bytes(grown3, grown));
}

TEST_CASE("a_tensor_that_an_optimizer_updates_does_not_take_another_shape") {
  torch::Tensor saved = torch::ones({2}, torch::requires_grad()), loaded = torch::ones({3}, torch::requires_grad());
  torch::optim::SGD optimizer({saved}, 0.1), other_optimizer({loaded}, 0.1);
  RunState from, to;
  from.track("x", saved).track("optimizer", optimizer);
  to.track("x", loaded).track("optimizer", other_optimizer);
  CHECK_THAT(error_of([&] { carry(from, to); }),
             Contains("x is F32 [3] in the program and F32 [2]") && Contains("add --holdfast.allow-mismatch 'x'"));
}

TEST_CASE("a_parameter_of_another_shape_stays_as_the_program_made_it_where_that_is_allowed") {
  const auto make = [](std::int64_t classes) {
    return torch::nn::Sequential(torch::nn::Linear(2, 3), torch::nn::Linear(3, classes));
  };
  auto net = make(2), wider = make(5);
  torch::optim::Adam optimizer(net->parameters(), 0.1), other_optimizer(wider->parameters(), 0.1);
  RunState from, to;
  from.track("net", net).track("optimizer", optimizer);
  to.track("net", wider).track("optimizer", other_optimizer);
  net->forward(torch::ones({1, 2})).sum().backward();
  optimizer.step();
  const auto head = wider->named_parameters()["1.weight"].detach().clone();
  CHECK_THAT(error_of([&] { carry(from, to); }), Contains("add --holdfast.allow-mismatch 'net.1.*'"));
  const auto notes =
      carry(from, to, {.allow_missing = {}, .allow_unexpected = {}, .allow_mismatch = {"net.1.*"}}).notes;
  CHECK(notes.size() == 4);
  CHECK_THAT(notes[0],
             Contains("net.1.weight is F32 [5, 3] in the program and F32 [2, 3] in the checkpoint: it stays"));
  CHECK(same_bytes(wider->named_parameters()["0.weight"], net->named_parameters()["0.weight"]));
  CHECK(same_bytes(wider->named_parameters()["1.weight"], head));
  wider->forward(torch::ones({1, 2})).sum().backward();
  other_optimizer.step();
  CHECK(other_optimizer.state().size() == 4);
}

TEST_CASE("restored_parameters_have_no_history_and_stale_graphs_fail") {
  torch::nn::Linear net(2, 2);
  RunState state;
  state.track("net", net);
  TrackedRun run;
  run.save(state);
  const auto stale = net->forward(torch::ones({1, 2}, torch::requires_grad())).square().sum();
  const void* const memory = net->weight.const_data_ptr();
  state.restore(run.newest());
  CHECK(net->weight.const_data_ptr() == memory);
  CHECK(net->weight.is_leaf());
  CHECK(net->weight.requires_grad());
  CHECK_FALSE(net->weight.grad().defined());
  CHECK_THROWS(stale.backward());
}

TEST_CASE("a_run_of_another_program_is_called_so_in_a_few_lines") {
  torch::nn::Sequential theirs, ours;
  for (int i = 0; i < 20; ++i) theirs->push_back(torch::nn::Linear(2, 2)), ours->push_back(torch::nn::Linear(2, 2));
  RunState from, to;
  from.track("generator_net", theirs);
  to.track("net", ours);
  TrackedRun run;
  run.save(from);
  const std::string message = error_of([&] { to.restore(run.newest()); });
  CHECK_THAT(message, Contains("was the run made by another program?") && Contains("--holdfast.run NAME"));
  CHECK(std::count(message.begin(), message.end(), '\n') < 10);
}

TEST_CASE("a_misfit_lists_every_difference_and_changes_nothing") {
  auto saved_net = make_net(3);
  double best = 2;
  torch::Tensor mask = torch::ones({2}), old = torch::ones({2, 1}), tied = old;
  RunState from;
  from.track("net", saved_net).track("best", best).track("mask", mask).track("old", old).track("tied", tied);
  TrackedRun run;
  run.save(from);

  auto net = make_net(4);
  net->push_back(torch::nn::Linear(4, 1));
  int epoch = 3;
  torch::Tensor other_mask = torch::zeros({2}, torch::kBool);
  RunState to;
  to.track("net", net).track("epoch", epoch).track("mask", other_mask);
  const auto before = bytes_of(to);
  const std::string message = error_of([&] { to.restore(run.newest()); });
  CHECK(message == R"(checkpoint 2-aaaa does not fit the program: 12 differences
  best is in the checkpoint (a value) and not in the program
  epoch is in the program (a value) and not in the checkpoint
  net.0.bias is F32 [4] in the program and F32 [3] in the checkpoint
  net.0.weight is F32 [4, 2] in the program and F32 [3, 2] in the checkpoint
  net.1.bias is F32 [4] in the program and F32 [3] in the checkpoint
  net.1.running_mean is F32 [4] in the program and F32 [3] in the checkpoint
  net.1.running_var is F32 [4] in the program and F32 [3] in the checkpoint
  net.1.weight is F32 [4] in the program and F32 [3] in the checkpoint
  net.2.bias is in the program (F32 [1]) and not in the checkpoint
  net.2.weight is in the program (F32 [1, 4]) and not in the checkpoint
  old is in the checkpoint (F32 [2, 1]) and not in the program
  tied is in the checkpoint (tied to old) and not in the program
Nothing was changed. Take the program this checkpoint was made with, or choose another version (--holdfast.from) or run (--holdfast.run). Where the program changes shapes or dtypes while it trains, write track("net", net, holdfast::resizable). To load the rest, add --holdfast.allow-missing 'epoch' --holdfast.allow-missing 'net.2.*' --holdfast.allow-unexpected 'best' --holdfast.allow-unexpected 'old' --holdfast.allow-unexpected 'tied' --holdfast.allow-mismatch 'net.0.*' --holdfast.allow-mismatch 'net.1.*')");
  CHECK(to.check(run.newest().manifest(), {.allow_missing = {"epoch", "net.2.*"},
                                           .allow_unexpected = {"best", "old", "tied"},
                                           .allow_mismatch = {"net.0.*", "net.1.*"}})
            .ok());
  CHECK(other_parts(bytes_of(to), before) == kNone);
  const auto fit = to.check(run.newest().manifest());
  CHECK(fit.message() == message);
  CHECK(other_parts(bytes_of(to), before) == kNone);
  CHECK_THAT(fit.message(2), Contains("epoch") && !Contains("net.0.bias is") && Contains("… and 10 more"));
}

TEST_CASE("differences_are_allowed_by_name") {
  auto saved_net = make_net();
  double best = 2;
  RunState from;
  from.track("net", saved_net).track("best", best);
  auto net = make_net();
  net->push_back(torch::nn::Linear(3, 1));
  const auto head = net->named_parameters()["2.weight"].detach().clone();
  RunState to;
  to.track("net", net);
  CHECK_FALSE(error_of([&] { carry(from, to, {.allow_missing = {"net.2.*"}, .allow_unexpected = {}}); }).empty());
  const auto restored = carry(from, to, {.allow_missing = {"net.2.*"}, .allow_unexpected = {"b?st"}});
  CHECK(restored.notes == std::vector<std::string>{
                              "net.2.weight is in the program (F32 [1, 3]) and not in the checkpoint: it stays as the "
                              "program made it, as 'net.2.*' allows",
                              "net.2.bias is in the program (F32 [1]) and not in the checkpoint: it stays as the "
                              "program made it, as 'net.2.*' allows",
                              "best is in the checkpoint (a value) and not in the program: it is left unread, as "
                              "'b?st' allows"});
  CHECK(same_bytes(net->named_parameters()["0.weight"], saved_net->named_parameters()["0.weight"]));
  CHECK(same_bytes(net->named_parameters()["2.weight"], head));
}

TEST_CASE("values_and_generators_change_only_after_every_digest_was_right") {
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
  CHECK_THAT(error_of([&] { state.restore(run.newest()); }), Contains("digest"));
  CHECK(value == 2);
  CHECK(average.decay == 3);
  CHECK((bytes_of(state).tensors.at("generator.cpu") == generator));
}
