// Which optimizers can be tracked: replaced ones, the user's own types, and those whose parameters are not tracked.
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "message_parts.h"
#include "tracked_run.h"

using holdfast::RunState;
using holdfast::storage::StatusCode;
namespace optim = torch::optim;

namespace {

/// A program that, while it runs, makes its optimizer a second time with another rate, and its scheduler too.
struct RemakingProgram {
  RemakingProgram() : net(3, 2) {
    make_optimizer(0.1);
    state.track("net", net).track("optimizer", optimizer).track("scheduler", scheduler);
  }
  void make_optimizer(double lr) {
    optimizer = std::make_shared<optim::Adam>(net->parameters(), optim::AdamOptions(lr));
    scheduler = std::make_unique<optim::StepLR>(*optimizer, 3, 0.5);
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) {
      optimizer->zero_grad();
      net->forward(torch::ones({1, 3})).square().sum().backward();
      optimizer->step();
      scheduler->step();
    }
  }
  torch::nn::Linear net;
  std::shared_ptr<optim::Adam> optimizer;
  std::unique_ptr<optim::LRScheduler> scheduler;
  RunState state;
};

}  // namespace

TEST_CASE("a_recreated_optimizer_is_saved_and_resumed") {
  RemakingProgram program;
  program.state.begin();
  program.steps(2);
  program.make_optimizer(0.01);
  program.steps(2);
  TrackedRun run;
  run.save(program.state);
  program.steps(5);

  RemakingProgram resumed;  // with the first rate
  CHECK(resumed.state.restore(run.newest()).notes.empty());
  CHECK(resumed.optimizer->param_groups()[0].options().get_lr() == 0.01);
  resumed.steps(5);
  CHECK(other_tensors(bytes_of(resumed.state), bytes_of(program.state)) == kNone);
}

namespace {

struct OwnOptimizer : optim::SGD {
  using SGD::SGD;
};

struct SavedOptimizer : optim::SGD {
  using SGD::load;
  using SGD::save;
  using SGD::SGD;
  int hidden = 3;
  void save(holdfast::State& state) const { state.put("hidden", hidden); }
  void load(const holdfast::State& state) { state.get_to("hidden", hidden); }
};

}  // namespace

TEST_CASE("an_optimizer_that_cannot_be_saved_is_refused_with_its_name_when_a_save_is_due") {
  torch::nn::Linear net(2, 3), other(2, 3);
  std::unique_ptr<optim::Optimizer> optimizer = std::make_unique<optim::SGD>(net->parameters(), 0.1);
  RunState state;
  state.track("net", net).track("optimizer", optimizer);
  CHECK(state.tracks(*optimizer));
  state.begin();
  optimizer = std::make_unique<optim::SGD>(net->parameters(), 0.2);
  CHECK(state.capture().values.at("optimizer").at("groups")[0].at("current").at("lr") == 0.2);
  optimizer = std::make_unique<optim::SGD>(other->parameters(), 0.1);
  const auto capture = [&] { state.capture(); };
  CHECK(refusal_lacking(StatusCode::invalid, capture, {"'optimizer'", "group 0", "parameter 0", "tracked module"}) ==
        "");
  optimizer = std::make_unique<OwnOptimizer>(net->parameters(), optim::SGDOptions(0.1));
  CHECK(find_part(error_of(capture), "'optimizer'") != std::string::npos);
  CHECK_THAT(error_of(capture), ContainsSubstring("OwnOptimizer"));
  optimizer.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), ContainsSubstring("optimizer 'optimizer' is null"));

  auto saved = std::make_unique<SavedOptimizer>(net->parameters(), optim::SGDOptions(0.1));
  state.untrack("optimizer");
  state.track("optimizer", saved);
  CHECK(state.capture().values.at("optimizer").at("values").at("hidden") == 3);
  saved.reset();
  CHECK_THAT(error_of([&] { state.capture(); }), ContainsSubstring("'optimizer' is null"));
}

TEST_CASE("a_parameter_of_no_tracked_module_is_refused_by_group_and_position") {
  torch::nn::Linear tracked(2, 3), forgotten(3, 5);
  std::vector<optim::OptimizerParamGroup> groups = {
      tracked->parameters(), std::vector<torch::Tensor>{tracked->weight.clone(), forgotten->weight}};
  groups[1].params()[0] = forgotten->bias;
  optim::Adam optimizer(groups, optim::AdamOptions(0.1));
  RunState state;
  state.track("net", tracked).track("optimizer", optimizer);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.begin(); },
                        {"'optimizer'", "group 1", "parameter 0", "F32 [5]", "tracked module"}) == "");
  state.track("bias", forgotten->bias);
  CHECK(refusal_lacking(StatusCode::invalid, [&] { state.capture(); }, {"group 1", "parameter 1", "F32 [5, 3]"}) == "");
  state.track("weight", forgotten->weight);
  CHECK(error_of([&] { state.begin(); }).empty());
}

TEST_CASE("a_user_defined_optimizer_needs_save_and_load") {
  torch::nn::Linear net(2, 3);
  OwnOptimizer own(net->parameters(), optim::SGDOptions(0.1));
  RunState state;
  state.track("net", net);
  CHECK_THAT(error_of([&] { state.track("optimizer", own); }),
             ContainsSubstring("OwnOptimizer") && ContainsSubstring("give it save(holdfast::State&)"));

  SavedOptimizer saved(net->parameters(), optim::SGDOptions(0.1));
  state.track("optimizer", saved);
  TrackedRun run;
  run.save(state);
  saved.hidden = 0;
  state.restore(run.newest());
  CHECK(saved.hidden == 3);
}
