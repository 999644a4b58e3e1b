// Tensors whose shape or dtype changes while a program trains: resizable ones are restored as they were saved, and a
// save refuses others.
#include "holdfast/runtime/serialize/resizable.h"

#include <torch/torch.h>

#include "catch.h"
#include "message_parts.h"
#include "replace_parameter.h"
#include "state/save_and_restore.h"
#include "tracked_run.h"

using holdfast::resizable;
using holdfast::RunState;
using holdfast::storage::StatusCode;

namespace {

/// Points that are added and removed, in two groups of Adam.
struct Points {
  Points() { state.track("means", means, resizable).track("scales", scales, resizable).track("optimizer", optimizer); }

  void steps(int count) {
    for (int i = 0; i < count; ++i) {
      optimizer.zero_grad();
      ((means - 1).square().sum() + (scales.square() * means.sum(1)).sum()).backward();
      optimizer.step();
    }
  }
  void densify() {
    const auto twice = [](const torch::Tensor& moment) { return torch::cat({moment, torch::zeros_like(moment)}); };
    replace_parameter(optimizer, 0, means, torch::cat({means, means + 0.1}), twice);
    replace_parameter(optimizer, 1, scales, torch::cat({scales, scales * 0.5}), twice);
  }
  void prune() {
    const auto keep = [](const torch::Tensor& x) { return x.slice(0, 1); };
    replace_parameter(optimizer, 0, means, keep(means), keep);
    replace_parameter(optimizer, 1, scales, keep(scales), keep);
  }

  torch::Tensor means = torch::arange(6, torch::kFloat).reshape({3, 2}).requires_grad_(true);
  torch::Tensor scales = torch::ones({3}, torch::requires_grad());
  torch::optim::Adam optimizer{
      std::vector<torch::optim::OptimizerParamGroup>{{{means}, std::make_unique<torch::optim::AdamOptions>(0.1)},
                                                     {{scales}, std::make_unique<torch::optim::AdamOptions>(0.01)}}};
  RunState state;
};

}  // namespace

TEST_CASE("parameters_that_grew_and_shrank_under_an_optimizer_resume_as_if_never_stopped") {
  Points program;
  program.state.begin();
  program.steps(2);
  program.densify();
  program.steps(2);
  program.prune();
  program.steps(1);
  REQUIRE(program.means.sizes() == at::IntArrayRef({5, 2}));
  TrackedRun run;
  run.save(program.state);

  Points resumed;
  resumed.steps(1);  // with gradients and moments of the initial shape
  const torch::Tensor handle = resumed.means;
  CHECK(resumed.state.restore(run.newest()).notes.empty());
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  CHECK(handle.is_same(resumed.means));
  CHECK(resumed.optimizer.param_groups()[0].params()[0].is_same(resumed.means));
  CHECK(resumed.means.is_leaf());
  CHECK(resumed.means.requires_grad());
  CHECK_FALSE(resumed.means.grad().defined());
  for (Points* one : {&program, &resumed}) {
    one->steps(3);
    one->densify();
    one->steps(2);
  }
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  run.save(resumed.state);  // the initial values of the run are kept
  Points again;
  CHECK(again.state.restore(run.newest()).notes.empty());
}

namespace {

struct Widening : torch::nn::Module {
  explicit Widening(std::int64_t width, bool is_resizable = true) {
    weight = register_parameter("weight", torch::full({width, 2}, 0.5));
    seen = register_buffer("seen", torch::zeros({width}));
    tied = register_parameter("tied", weight);
    if (is_resizable) {
      state.track("net", *this, resizable);
    } else {
      state.track("net", *this);
    }
    optimizer = std::make_unique<torch::optim::SGD>(std::vector<torch::Tensor>{weight},
                                                    torch::optim::SGDOptions(0.1).momentum(0.9));
    state.track("optimizer", *optimizer);
  }
  void step() {
    optimizer->zero_grad();
    (weight * weight).sum().backward();
    optimizer->step();
    seen.add_(1);
  }
  void widen(const torch::Tensor& wider) {
    auto& momentum = static_cast<torch::optim::SGDParamState&>(*optimizer->state().at(weight.unsafeGetTensorImpl()));
    momentum.momentum_buffer(torch::ones_like(wider));
    weight.set_data(wider);
    weight.mutable_grad().reset();
    seen.set_data(torch::ones({wider.size(0)}));
  }

  torch::Tensor weight, seen, tied;
  std::unique_ptr<torch::optim::SGD> optimizer;
  RunState state;
};

}  // namespace

TEST_CASE("parameters_and_buffers_of_a_resizable_module_take_the_saved_shape_and_dtype_in_place") {
  Widening program(2);
  program.state.begin();
  program.step();
  program.widen(torch::rand({4, 2}, torch::kDouble));
  program.step();
  Widening resumed(2);
  const auto loss = (resumed.weight * 2).sum();  // a graph that expects gradients of the old shape
  const RunState& saved = program.state;
  CHECK(carry(saved, resumed.state).notes.empty());
  CHECK(resumed.weight.sizes() == at::IntArrayRef({4, 2}));
  CHECK(resumed.weight.scalar_type() == torch::kDouble);
  CHECK(resumed.tied.data_ptr() == resumed.weight.data_ptr());
  CHECK(resumed.seen.sizes() == at::IntArrayRef({4}));
  CHECK(resumed.named_parameters()["weight"].is_same(resumed.optimizer->param_groups()[0].params()[0]));
  program.step();
  resumed.step();
  CHECK(other_parts(bytes_of(resumed.state), bytes_of(program.state)) == kNone);

  Widening edited(3);
  const auto notes = carry(saved, edited.state).notes;
  REQUIRE(notes.size() == 1);
  for (const std::string name : {"net.weight", "net.tied"}) {
    CHECK(lacking(notes[0], {name + " is F32 [3, 2] in the code and was F32 [2, 2]"}) == "");
  }
  CHECK(lacking(notes[0], {"net.seen is F32 [3] in the code and was F32 [2]"}) == "");
  CHECK(edited.weight.size(0) == 4);

  Widening kept(3);
  const auto allowed =
      carry(saved, kept.state, {.allow_missing = {}, .allow_unexpected = {}, .allow_mismatch = {"net.*"}}).notes;
  CHECK(allowed.size() == 4);
  CHECK(kept.weight.size(0) == 3);
  kept.step();
}

TEST_CASE("a_resizable_parameter_keeps_its_memory_format") {
  const auto make = [](std::int64_t channels) {
    return torch::rand({2, channels, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_(true);
  };
  torch::Tensor saved = make(4), loaded = make(2);
  RunState from, to;
  from.track("x", saved, resizable);
  to.track("x", loaded, resizable);
  carry(from, to);
  CHECK(torch::equal(loaded, saved));
  CHECK(loaded.strides() == saved.strides());
}

TEST_CASE("a_parameter_of_another_shape_is_refused_with_the_call_that_takes_it") {
  torch::Tensor saved = torch::ones({2}, torch::requires_grad()), loaded = torch::ones({3}, torch::requires_grad());
  torch::optim::SGD optimizer({saved}, 0.1), other_optimizer({loaded}, 0.1);
  RunState from, to;
  from.track("means", saved, resizable).track("optimizer", optimizer);
  to.track("means", loaded).track("optimizer", other_optimizer);
  CHECK(refusal_lacking(StatusCode::misfit, [&] { carry(from, to); },
                        {"2-aaaa", "1 difference", "means is F32 [3] in the program", "F32 [2] in the checkpoint",
                         "--holdfast.from", "--holdfast.run", "track(\"means\", means, holdfast::resizable)",
                         "--holdfast.allow-mismatch 'means'"}) == "");
  CHECK(loaded.size(0) == 3);

  torch::Tensor count = torch::zeros({2}, torch::kInt), parameter = torch::zeros({2}, torch::requires_grad());
  RunState integers, floats;
  integers.track("x", count);
  floats.track("x", parameter, resizable);
  torch::optim::SGD third({parameter}, 0.1);
  floats.track("optimizer", third);
  CHECK_THAT(error_of([&] { carry(integers, floats); }),
             ContainsSubstring("x is F32 [2] in the program and I32 [2] in the checkpoint") &&
                 !ContainsSubstring("holdfast::resizable"));
}

TEST_CASE("layers_added_to_a_resizable_module_during_the_run_must_exist_before_the_loop") {
  torch::nn::Sequential net(torch::nn::Linear(2, 2)), short_net(torch::nn::Linear(2, 2));
  RunState from, to;
  from.track("net", net, resizable);
  to.track("net", short_net, resizable);
  from.begin();
  net->push_back(torch::nn::Linear(2, 1));
  TrackedRun run;
  run.save(from);
  CHECK_THAT(error_of([&] { to.restore(run.newest()); }),
             ContainsSubstring("net.1.weight is in the checkpoint (F32 [1, 2])") &&
                 ContainsSubstring("a resizable module ('net')"));
  short_net->push_back(torch::nn::Linear(2, 1));
  to.restore(run.newest());
  CHECK(other_tensors(bytes_of(to), bytes_of(from)) == kNone);
}

TEST_CASE("a_module_that_could_not_be_restored_is_refused_when_it_is_saved") {
  auto net = std::make_shared<torch::nn::LinearImpl>(2, 3);
  RunState state;
  state.track("net", net);
  state.begin();
  const auto first = net;
  net = std::make_shared<torch::nn::LinearImpl>(2, 3);
  state.capture();
  net->to(torch::kDouble);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.capture(); },
                        {"'net'", "net.weight was F32 [3, 2] and is F64 [3, 2]", "net.bias was F32 [3] and is F64 [3]",
                         "track(\"net\", net, holdfast::resizable)"}) == "");
  net = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(4, 3).bias(false));
  net->register_parameter("more", torch::ones({1}));
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.capture(); },
                        {"net.weight was F32 [3, 2] and is F32 [3, 4]", "net.more (F32 [1]) is new",
                         "net.bias (F32 [3]) is gone"}) == "");
  net = first;
  TrackedRun run;
  run.save(state);
  state.restore(run.newest());
  net->to(torch::kHalf);
  CHECK_THAT(error_of([&] { state.capture(); }), ContainsSubstring("net.weight was F32 [3, 2] and is F16 [3, 2]"));
}

TEST_CASE("a_tensor_that_an_optimizer_updates_is_refused_in_another_shape_when_it_is_saved") {
  torch::Tensor means = torch::ones({2}, torch::requires_grad()), plain = torch::ones({2}), later;
  torch::optim::SGD optimizer({means}, 0.1);
  RunState state;
  state.track("means", means).track("plain", plain).track("later", later).track("optimizer", optimizer);
  state.begin();
  plain = torch::ones({5});
  later = torch::ones({1}, torch::requires_grad());
  state.capture();
  optimizer.add_param_group(torch::optim::OptimizerParamGroup({later}));
  const auto capture = [&] { state.capture(); };
  CHECK(refusal_lacking(StatusCode::invalid, capture,
                        {"'later' was undefined", "optimizer", "track(\"later\", later, holdfast::resizable)"}) == "");
  optimizer.param_groups().pop_back();
  means = torch::ones({3}, torch::requires_grad());
  optimizer.param_groups()[0].params()[0] = means;
  CHECK(refusal_lacking(StatusCode::invalid, capture,
                        {"'means'", "was F32 [2] and is F32 [3]", "optimizer",
                         "track(\"means\", means, holdfast::resizable)"}) == "");
}

TEST_CASE("an_optimizer_of_another_class_than_the_run_began_with_is_refused_when_it_is_saved") {
  torch::nn::Linear net(2, 3);
  std::unique_ptr<torch::optim::Optimizer> optimizer = std::make_unique<torch::optim::Adam>(net->parameters(), 0.1);
  RunState state;
  state.track("net", net).track("optimizer", optimizer);
  state.begin();
  optimizer = std::make_unique<torch::optim::SGD>(net->parameters(), 0.1);
  CHECK_THAT(error_of([&] { state.capture(); }),
             ContainsSubstring("'optimizer' was Adam") && ContainsSubstring("is SGD now"));
}

TEST_CASE("a_tensor_added_to_an_optimizer_during_the_run_is_the_one_that_it_updates_after_a_resume") {
  struct Program {
    explicit Program(bool is_resizable) {
      state.track("net", net).track("optimizer", optimizer);
      if (is_resizable) {
        state.track("extra", extra, resizable);
      } else {
        state.track("extra", extra);
      }
    }
    torch::nn::Linear net{2, 1};
    torch::Tensor extra = torch::zeros({0}, torch::requires_grad());
    torch::optim::SGD optimizer{net->parameters(), 0.1};
    RunState state;
  };
  Program program(true);
  program.state.begin();
  program.extra = torch::ones({2}, torch::requires_grad());
  program.optimizer.add_param_group(torch::optim::OptimizerParamGroup({program.extra}));
  Program resumed(true), plain(false);
  carry(program.state, resumed.state);
  REQUIRE(resumed.optimizer.param_groups().size() == 2);
  CHECK(resumed.optimizer.param_groups()[1].params()[0].is_same(resumed.extra));
  CHECK(torch::equal(resumed.extra, program.extra));
  CHECK_THAT(error_of([&] { carry(program.state, plain.state); }),
             ContainsSubstring("extra is F32 [0] in the program and F32 [2] in the checkpoint") &&
                 ContainsSubstring("track(\"extra\", extra, holdfast::resizable)"));
}
