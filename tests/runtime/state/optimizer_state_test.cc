// After a restore into new objects, every optimizer of LibTorch continues as if it had never stopped: with the same
// losses and the same bytes.
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "message_parts.h"
#include "state/optimizer_program.h"
#include "tracked_run.h"

using holdfast::RunState;
using namespace optimizer_program;

TEST_CASE("every_optimizer_resumes_as_if_it_had_never_stopped") {
  for (const auto& [name, make] : optimizers()) {
    DYNAMIC_SECTION(name) {
      Program uninterrupted(make);
      uninterrupted.steps(3);
      TrackedRun run;
      run.save(uninterrupted.state);
      const StateBytes at_save = bytes_of(uninterrupted.state);
      const auto losses = uninterrupted.steps(4);
      const StateBytes at_end = bytes_of(uninterrupted.state);
      REQUIRE(other_tensors(at_end, at_save) != kNone);

      // LBFGS keeps its only state under the first parameter.
      const bool reversed = dynamic_cast<optim::LBFGS*>(uninterrupted.optimizer.get()) == nullptr;
      for (const int steps_before : {0, 2}) {
        CAPTURE(steps_before);
        Program resumed(make, 7, reversed && steps_before == 0);
        resumed.steps(steps_before);
        resumed.state.restore(run.newest());
        if (!reversed || steps_before > 0) CHECK(other_parts(bytes_of(resumed.state), at_save) == kNone);
        CHECK(other_tensors(bytes_of(resumed.state), at_save) == kNone);
        CHECK(resumed.steps(4) == losses);
        CHECK(other_tensors(bytes_of(resumed.state), at_end) == kNone);
        CHECK(resumed.net->tied.is_same(resumed.net->named_parameters()["tied"]));
      }
    }
  }
}

TEST_CASE("state_from_before_the_first_step_replaces_later_state") {
  for (const auto& [name, make] : optimizers()) {
    DYNAMIC_SECTION(name) {
      Program fresh(make);
      TrackedRun run;
      run.save(fresh.state);
      const auto losses = fresh.steps(3);

      Program later(make, 7);
      later.steps(2);
      later.state.restore(run.newest());
      CHECK(later.steps(3) == losses);
      CHECK(other_parts(bytes_of(later.state), bytes_of(fresh.state)) == kNone);
    }
  }
}

TEST_CASE("equal_states_give_equal_files") {
  const auto& make = optimizers().front().second;
  TrackedRun first, second;
  for (auto* run : {&first, &second}) {
    Program program(make);
    program.steps(3);
    run->save(program.state);
  }
  // The metadata contains the version, which is the same here.
  CHECK((first.payload() == second.payload()));
  CHECK(first.newest().manifest().values == second.newest().manifest().values);
}

namespace {

// Four parameters under Adam: two after three steps, one after one step, one that has had no gradient yet.
struct UnevenSteps {
  UnevenSteps() {
    for (const char* name : {"a", "b", "once", "never"}) net->register_parameter(name, torch::ones({2}));
    optimizer = std::make_unique<optim::Adam>(net->parameters(), optim::AdamOptions(0.1));
    state.track("net", net).track("optimizer", optimizer);
  }
  void step(const std::vector<std::string>& reached) {
    optimizer->zero_grad();
    for (const std::string& name : reached) net->named_parameters()[name].mutable_grad() = torch::ones({2});
    optimizer->step();
  }

  std::shared_ptr<torch::nn::Module> net = std::make_shared<torch::nn::Module>();
  std::unique_ptr<optim::Adam> optimizer;
  RunState state;
};

}  // namespace

TEST_CASE("state_common_to_all_parameters_is_written_once_and_the_rest_is_restored") {
  UnevenSteps program;
  program.step({"a", "b"});
  program.step({"a", "b"});
  program.step({"a", "b", "once"});
  holdfast::Snapshot captured = program.state.capture();
  const nlohmann::json& written = captured.values.at("optimizer");
  CHECK(written.at("state_of_others") == nlohmann::json{{"step", 3}});
  CHECK(written.at("state") == nlohmann::json{{"net.once", {{"step", 1}}}, {"net.never", nullptr}});

  SECTION("as it is written") {}
  SECTION("where a version lists the state of every parameter") {
    nlohmann::json& optimizer = captured.values["optimizer"];
    for (const char* name : {"net.a", "net.b"}) optimizer["state"][name] = optimizer.at("state_of_others");
    optimizer["state"].erase("net.never");
    optimizer.erase("state_of_others");
  }
  TrackedRun run;
  run.save(std::move(captured));
  UnevenSteps resumed;
  resumed.state.restore(run.newest());
  CHECK(resumed.optimizer->state().size() == 3);
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  CHECK(bytes_of(resumed.state).values == bytes_of(program.state).values);
  for (UnevenSteps* one : {&program, &resumed}) one->step({"a", "b", "once", "never"});
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
  CHECK(bytes_of(resumed.state).values == bytes_of(program.state).values);
}

TEST_CASE("state_keeps_the_memory_order_of_channels_last_parameters") {
  auto program = [](std::uint64_t seed) {
    torch::manual_seed(seed);
    torch::nn::Conv2d conv(torch::nn::Conv2dOptions(4, 6, 3));
    conv->weight.set_data(conv->weight.contiguous(at::MemoryFormat::ChannelsLast));
    return conv;
  };
  auto train = [](torch::nn::Conv2d conv, optim::Optimizer& optimizer) {
    for (int i = 0; i < 2; ++i) {
      optimizer.zero_grad();
      conv->forward(torch::randn({2, 4, 8, 8})).square().mean().backward();
      optimizer.step();
    }
  };
  auto conv = program(0);
  optim::AdamW optimizer(conv->parameters(), optim::AdamWOptions(0.1));
  RunState state;
  state.track("conv", conv).track("optimizer", optimizer);
  train(conv, optimizer);
  TrackedRun run;
  run.save(state);

  auto conv2 = program(1);
  optim::AdamW optimizer2(conv2->parameters(), optim::AdamWOptions(0.1));
  RunState state2;
  state2.track("conv", conv2).track("optimizer", optimizer2);
  state2.restore(run.newest());
  CHECK(other_parts(bytes_of(state2), bytes_of(state)) == kNone);
  const auto& restored =
      static_cast<optim::AdamWParamState&>(*optimizer2.state().at(conv2->weight.unsafeGetTensorImpl()));
  CHECK(restored.exp_avg().is_contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(conv2->weight.is_contiguous(at::MemoryFormat::ChannelsLast));
  train(conv, optimizer);
  torch::manual_seed(5);
  state2.restore(run.newest());
  train(conv2, optimizer2);
  CHECK(torch::equal(conv->weight, conv2->weight));
}

TEST_CASE("edited_options_win_over_saved_ones_and_unedited_ones_are_restored") {
  auto program = [](double lr, double momentum) {
    return Program(make<optim::SGD>(optim::SGDOptions(lr).momentum(momentum)));
  };
  auto options = [](Program& program) -> optim::SGDOptions& {
    return static_cast<optim::SGDOptions&>(program.optimizer->param_groups()[0].options());
  };
  TrackedRun run;
  {
    auto first = program(0.01, 0.9);
    first.state.begin();
    first.steps(1);
    options(first).lr(0.005);  // as a schedule would
    run.save(first.state);
  }
  {
    auto same = program(0.01, 0.9);
    const auto restored = same.state.restore(run.newest());
    CHECK(restored.notes.empty());
    CHECK(options(same).lr() == 0.005);
    // A second restore, as after a corrupt version, does not mistake values of the first one for values of the code.
    CHECK(same.state.restore(run.newest()).notes.empty());
    CHECK(options(same).lr() == 0.005);
    // The initial value set by the code stays the initial value over any number of resumes.
    TrackedRun next;
    next.save(same.state);
    auto third = program(0.01, 0.9);
    CHECK(third.state.restore(next.newest()).notes.empty());
    CHECK(options(third).lr() == 0.005);
  }
  {
    auto edited = program(0.02, 0.9);
    const auto restored = edited.state.restore(run.newest());
    REQUIRE(restored.notes.size() == 1);
    CHECK(lacking(restored.notes[0], {"optimizer group 0", "lr", "0.02 in the code", "0.01", "0.005"}) == "");
    CHECK(options(edited).lr() == 0.02);
    CHECK(options(edited).momentum() == 0.9);
  }
  {
    auto program_edits_late = program(0.01, 0.9);
    options(program_edits_late).lr(0.3);  // between track() and restore() the code still sets initial values
    program_edits_late.state.begin();
    TrackedRun late;
    late.save(program_edits_late.state);
    const auto value = late.newest().manifest().values.at("optimizer").at("groups").at(0);
    CHECK(value.at("initial").at("lr") == 0.3);
  }
}

TEST_CASE("state_that_an_edited_option_adds_starts_at_zero") {
  const auto check = [](const std::string& name, const MakeOptimizer& saved, const MakeOptimizer& edited) {
    INFO(name);
    Program before(saved), after(edited), fresh(edited);
    before.steps(3);
    TrackedRun run;
    run.save(before.state);
    after.state.restore(run.newest());
    for (const float loss : after.steps(3)) CHECK(std::isfinite(loss));
    fresh.steps(1);
    CHECK(other_tensors(bytes_of(after.state), bytes_of(fresh.state)).size() >= 1);
    run.save(after.state);  // with all state that the edited options need
    CHECK(bytes_of(after.state).tensors.size() == bytes_of(fresh.state).tensors.size());
  };
  check("Adam", make<optim::Adam>(optim::AdamOptions(0.02)), make<optim::Adam>(optim::AdamOptions(0.02).amsgrad(true)));
  check("AdamW", make<optim::AdamW>(optim::AdamWOptions(0.02)),
        make<optim::AdamW>(optim::AdamWOptions(0.02).amsgrad(true)));
  check("RMSprop", make<optim::RMSprop>(optim::RMSpropOptions(0.02)),
        make<optim::RMSprop>(optim::RMSpropOptions(0.02).momentum(0.9).centered(true)));
  check("SGD", make<optim::SGD>(optim::SGDOptions(0.02)), make<optim::SGD>(optim::SGDOptions(0.02).momentum(0.9)));
}

TEST_CASE("an_optimizer_that_does_not_fit_changes_nothing") {
  Program adam(optimizers().front().second);
  adam.steps(2);
  TrackedRun run;
  run.save(adam.state);

  Program sgd(make<optim::SGD>(optim::SGDOptions(0.1).momentum(0.5)), 3);
  sgd.steps(1);
  const auto before = bytes_of(sgd.state);
  const auto fit = sgd.state.check(run.newest().manifest());
  REQUIRE(fit.differences.size() == 1);
  CHECK(lacking(fit.differences[0].what, {"optimizer", "SGD in the program", "Adam in the checkpoint"}) == "");
  CHECK_FALSE(error_of([&] { sgd.state.restore(run.newest()); }).empty());
  CHECK(other_parts(bytes_of(sgd.state), before) == kNone);
}

TEST_CASE("new_parameters_start_without_optimizer_state_if_that_is_allowed") {
  torch::nn::Linear body(2, 3), head(3, 2);
  optim::Adagrad small(body->parameters(), optim::AdagradOptions(0.1));
  RunState saved;
  saved.track("body", body).track("optimizer", small);
  body->forward(torch::ones({1, 2})).sum().backward();
  small.step();
  TrackedRun run;
  run.save(saved);

  auto parameters = body->parameters();
  for (const auto& parameter : head->parameters()) parameters.push_back(parameter);
  optim::Adagrad large(parameters, optim::AdagradOptions(0.1));
  RunState program;
  program.track("body", body).track("head", head).track("optimizer", large);
  CHECK(program.check(run.newest().manifest()).differences.size() == 4);
  const auto restored = program.restore(run.newest(), {.allow_missing = {"head*"}, .allow_unexpected = {}});
  CHECK(restored.notes.size() == 4);
  head->forward(body->forward(torch::ones({1, 2}))).sum().backward();
  large.step();  // Adagrad makes state in its constructor; the head's must still exist
  const auto& state = static_cast<optim::AdagradParamState&>(*large.state().at(body->weight.unsafeGetTensorImpl()));
  CHECK(state.step() == 2);
}
