// Frozen parameters and eval mode are restored as they were, unless the code was edited.
#include <torch/torch.h>

#include "message_parts.h"
#include "tracked_run.h"

using holdfast::RunState;

namespace {

struct Net : torch::nn::Module {
  torch::nn::Linear body = register_module("body", torch::nn::Linear(2, 2));
  torch::nn::BatchNorm1d norm = register_module("norm", torch::nn::BatchNorm1d(2));
  torch::nn::Linear head = register_module("head", torch::nn::Linear(2, 1));
  torch::Tensor tied = register_parameter("tied", head->weight);

  void freeze(bool frozen) {
    for (auto& parameter : body->parameters()) parameter.set_requires_grad(!frozen);
  }
  std::vector<bool> flags() const {
    return {body->weight.requires_grad(), body->bias.requires_grad(), head->weight.requires_grad(), is_training(),
            body->is_training(),          norm->is_training(),        head->is_training()};
  }
};

/// A program that starts with a frozen body and everything in training mode.
struct FreezingProgram {
  explicit FreezingProgram(bool frozen = true) {
    net.freeze(frozen);
    state.track("net", net);
  }
  Net net;
  RunState state;
};

}  // namespace

TEST_CASE("flags_changed_during_the_run_are_restored") {
  FreezingProgram first;
  first.state.begin();
  first.net.freeze(false);
  first.net.norm->eval();
  first.net.head->weight.set_requires_grad(false);
  TrackedRun run;
  run.save(first.state);

  FreezingProgram second;
  CHECK(second.state.restore(run.newest()).notes.empty());
  CHECK(second.net.flags() == first.net.flags());
  // The initial flags of the run are kept over any number of resumes, and over another restore in the same process.
  second.net.norm->train();
  second.net.body->bias.set_requires_grad(false);
  TrackedRun next;
  next.save(second.state);
  FreezingProgram third;
  CHECK(third.state.restore(next.newest()).notes.empty());
  CHECK(third.net.flags() == second.net.flags());
  CHECK(third.state.restore(run.newest()).notes.empty());
  CHECK(third.net.flags() == first.net.flags());
}

TEST_CASE("flags_of_submodules_that_are_tracked_separately_are_restored") {
  Net net, other;
  RunState from, to;
  from.track("body", net.body).track("rest", net.norm);
  to.track("body", other.body).track("rest", other.norm);
  from.begin();
  net.freeze(true);
  net.norm->eval();
  TrackedRun run;
  run.save(from);
  to.restore(run.newest());
  CHECK(other.flags() == net.flags());
}

TEST_CASE("flags_edited_in_the_code_win_and_are_reported") {
  FreezingProgram first;
  first.state.begin();
  TrackedRun run;
  run.save(first.state);

  FreezingProgram edited(false);
  edited.net.norm->eval();
  const auto notes = edited.state.restore(run.newest()).notes;
  REQUIRE(notes.size() == 2);
  CHECK(lacking(notes[0], {"net.body.bias", "net.body.weight", "trained in the code", "frozen"}) == "");
  CHECK(lacking(notes[1], {"net.norm", "eval mode in the code", "training"}) == "");
  CHECK(edited.net.body->weight.requires_grad());
  CHECK_FALSE(edited.net.norm->is_training());

  // The edited code now starts with the flags that the run had later: nothing to report.
  first.net.freeze(false);
  run.save(first.state);
  FreezingProgram same(false);
  CHECK(same.state.restore(run.newest()).notes.empty());
  CHECK(same.net.body->weight.requires_grad());
}

TEST_CASE("a_version_saved_without_flags_leaves_those_of_the_code") {
  FreezingProgram first;
  torch::Tensor tensor = torch::ones({2}, torch::requires_grad());
  first.state.track("tensor", tensor);
  auto captured = first.state.capture();
  captured.values.erase("net");
  captured.values["tensor"] = "cpu";
  TrackedRun run;
  run.save(std::move(captured));
  FreezingProgram second(false);
  torch::Tensor other = torch::ones({2});
  second.state.track("tensor", other);
  second.net.head->eval();
  const auto before = second.net.flags();
  CHECK(second.state.restore(run.newest()).notes.empty());
  CHECK(second.net.flags() == before);
  CHECK_FALSE(other.requires_grad());
}

TEST_CASE("flags_are_restored_even_if_a_module_overrides_train") {
  struct Stubborn : Net {
    void train(bool on) override {
      Module::train(on);
      norm->eval();
    }
  } saved, loaded;
  saved.train(true);
  loaded.train(true);
  RunState from, to;
  from.track("net", static_cast<Net&>(saved));
  to.track("net", static_cast<Net&>(loaded));
  from.begin();
  saved.norm->train();
  TrackedRun run;
  run.save(from);
  to.restore(run.newest());
  CHECK(loaded.flags() == saved.flags());
}

TEST_CASE("requires_grad_of_a_tracked_tensor_is_restored") {
  torch::Tensor a = torch::ones({2}), b = torch::ones({2}, torch::requires_grad()), c = torch::ones({2}), d;
  torch::Tensor e = torch::ones({2}), f = torch::ones({2}), g = torch::ones({2}, torch::requires_grad()), h;
  RunState from, to;
  from.track("a", a).track("b", b).track("c", c).track("d", d);
  to.track("a", e).track("b", f).track("c", g).track("d", h);
  from.begin();
  a.set_requires_grad(true);
  c = b * 2;  // its graph is not saved
  d = torch::ones({3}, torch::requires_grad());
  TrackedRun run;
  run.save(from);
  const auto notes = to.restore(run.newest()).notes;
  CHECK(e.requires_grad());
  CHECK_FALSE(f.requires_grad());
  CHECK(g.requires_grad());
  CHECK(h.requires_grad());
  REQUIRE(notes.size() == 1);
  CHECK(lacking(notes[0], {"b", "in the code it does not require a gradient"}) == "");
}
