// After a restore into new objects, LibTorch's schedulers continue as if they had never stopped.
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "message_parts.h"
#include "state/optimizer_program.h"
#include "tracked_run.h"

using holdfast::RunState;
using namespace optimizer_program;

TEST_CASE("schedulers_resume") {
  struct Scheduled : Program {
    explicit Scheduled(std::uint64_t seed)
        : Program(make<optim::SGD>(optim::SGDOptions(0.1)), seed),
          step_lr(*optimizer, 3, 0.5),
          plateau(*optimizer, optim::ReduceLROnPlateauScheduler::min, 0.5, 1, 1e-4,
                  optim::ReduceLROnPlateauScheduler::rel, 1) {
      state.track("step_lr", step_lr).track("plateau", plateau);
    }
    std::vector<double> rates(int count, float metric) {
      std::vector<double> rates;
      for (int i = 0; i < count; ++i) {
        step_lr.step();
        plateau.step(metric);
        rates.push_back(optimizer->param_groups()[0].options().get_lr());
      }
      return rates;
    }
    optim::StepLR step_lr;
    optim::ReduceLROnPlateauScheduler plateau;
  };
  Scheduled uninterrupted(0);
  TrackedRun at_start;
  at_start.save(uninterrupted.state);  // the best metric so far is infinite
  const auto all = uninterrupted.rates(4, 1.0f);
  TrackedRun run;
  run.save(uninterrupted.state);
  const auto rates = uninterrupted.rates(9, 1.0f);
  REQUIRE(rates.front() != rates.back());

  Scheduled resumed(1);
  resumed.state.restore(run.newest());
  CHECK(resumed.rates(9, 1.0f) == rates);
  resumed.state.restore(at_start.newest());
  CHECK(resumed.rates(4, 1.0f) == all);
}

TEST_CASE("scheduler_constants_edited_in_the_code_are_reported_and_win") {
  const auto program = [](double gamma, int patience) {
    auto made = std::make_unique<Program>(make<optim::SGD>(optim::SGDOptions(0.1)));
    auto step_lr = std::make_shared<optim::StepLR>(*made->optimizer, 3, gamma);
    auto plateau = std::make_shared<optim::ReduceLROnPlateauScheduler>(
        *made->optimizer, optim::ReduceLROnPlateauScheduler::min, 0.5, patience);
    made->state.track("step_lr", *step_lr).track("plateau", *plateau);
    return std::tuple(std::move(made), step_lr, plateau);
  };
  const auto [saved, step_lr, plateau] = program(0.5, 1);
  TrackedRun run;
  run.save(saved->state);
  const auto [same, step_lr2, plateau2] = program(0.5, 1);
  CHECK(same->state.restore(run.newest()).notes.empty());
  const auto [edited, step_lr3, plateau3] = program(0.9, 4);
  const auto notes = edited->state.restore(run.newest()).notes;
  REQUIRE(notes.size() == 2);
  CHECK(lacking(notes[0], {"step_lr gamma", "0.9 in the code", "0.5"}) == "");
  CHECK(lacking(notes[1], {"plateau patience", "4 in the code", "1"}) == "");
  for (int i = 0; i < 4; ++i) step_lr3->step();
  CHECK(std::abs(edited->optimizer->param_groups()[0].options().get_lr() - 0.09) < 1e-12);

  auto captured = saved->state.capture();  // as saved before Holdfast stored constants
  captured.values["step_lr"].erase("constants");
  run.save(std::move(captured));
  CHECK(edited->state.restore(run.newest()).notes.size() == 1);
}
