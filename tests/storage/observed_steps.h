// Performs a protocol's steps in order, for tests that act before some of them.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/storage/step_runner.h"

class ObservedSteps : public holdfast::storage::StepRunner {
 public:
  /// Called before each step, with its label.
  virtual void reached(std::string_view step) = 0;

  holdfast::storage::Status perform(std::vector<holdfast::storage::Step> steps) override {
    for (holdfast::storage::Step& step : steps) {
      step.run = [this, label = step.label, run = std::move(step.run)] {
        reached(label);
        return run();
      };
    }
    return StepRunner::perform(std::move(steps));
  }
};
