// Which objects and names are tracked, and what is saved of a variable that holds another object than at first.
#include <torch/torch.h>

#include <cstring>
#include <memory>
#include <optional>

#include "message_parts.h"
#include "state/save_and_restore.h"

using holdfast::RunState;
using holdfast::storage::StatusCode;

TEST_CASE("modules_are_tracked_as_holder_pointer_or_reference_and_traversed_at_each_save") {
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

TEST_CASE("saving_and_restoring_use_the_object_that_the_variable_holds_now") {
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

TEST_CASE("a_null_pointer_is_refused_by_name_when_it_is_saved_or_restored") {
  auto target = std::make_shared<torch::nn::LinearImpl>(2, 1), missing = target;
  missing.reset();
  torch::nn::Linear empty{nullptr};
  RunState state;
  CHECK_THAT(error_of([&] { state.track("none", missing); }), ContainsSubstring("module 'none' is null"));
  CHECK_THAT(error_of([&] { state.track("none", empty); }), ContainsSubstring("module 'none' is null"));
  state.track("target", target);
  TrackedRun run;
  run.save(state);
  target.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), ContainsSubstring("module 'target' is null"));
  CHECK_THAT(error_of([&] { state.restore(run.newest()); }), ContainsSubstring("module 'target' is null"));
}

TEST_CASE("an_object_is_tracked_once_by_reference_pointer_or_holder") {
  auto net = std::make_shared<torch::nn::LinearImpl>(2, 1), same = net;
  RunState state;
  state.track("net", net);
  CHECK_THAT(error_of([&] { state.track("again", *net); }), ContainsSubstring("tracked as 'net' already"));
  CHECK_THAT(error_of([&] { state.track("again", same); }), ContainsSubstring("tracked as 'net' already"));
  CHECK_THAT(error_of([&] { state.track("again", net); }), ContainsSubstring("tracked as 'net' already"));
}

TEST_CASE("untracked_items_are_not_saved_and_their_names_are_free") {
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
  CHECK_THAT(error_of([&] { state.untrack("valeu"); }), ContainsSubstring("'valeu'") && ContainsSubstring("'value'"));
}

TEST_CASE("names_that_end_like_those_of_rank_local_state_are_restored") {
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
  for (const std::string& note : to.restore(run.newest()).notes) {
    CHECK_THAT(note, ContainsSubstring("generator.cuda"));  // of GPUs that are not this rank's
  }
  CHECK(other_value == 2);
  for (const auto& name : names) CHECK(same_bytes(saved.named_parameters()[name], loaded.named_parameters()[name]));
  CHECK(same_bytes(saved.named_buffers()["b@1"], loaded.named_buffers()["b@1"]));
}

TEST_CASE("names_are_unique_and_objects_tracked_once") {
  torch::nn::Linear net(2, 2), other(2, 2);
  double x = 0, y = 0;
  RunState state;
  state.track("net", net).track("x", x);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.track("net", other); }, {"'net'", "another name"}) == "");
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.track("again", *net); }, {"'again'", "tracked as 'net'"}) ==
        "");
  CHECK_THAT(error_of([&] { state.track("again", x); }), ContainsSubstring("tracked as 'x'"));
  CHECK_THAT(error_of([&] { state.track("", y); }), ContainsSubstring("not empty"));
  CHECK_THAT(error_of([&] { state.track("\xff", y); }), ContainsSubstring("UTF-8"));
  CHECK_THAT(error_of([&] { state.track("__metadata__", y); }), ContainsSubstring("__metadata__"));
  torch::Tensor weight = torch::ones({2});
  state.track("net.weight", weight);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.capture(); }, {"two", "'net.weight'"}) == "");
}

TEST_CASE("a_destroyed_module_that_was_tracked_by_reference_is_refused_by_name") {
  auto net = std::make_shared<torch::nn::LinearImpl>(1, 1);
  RunState state;
  state.track("net", *net);
  TrackedRun run;
  run.save(state);
  net = std::make_shared<torch::nn::LinearImpl>(1, 1);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { run.save(state); }, {"'net'", "shared_ptr"}) == "");
}
