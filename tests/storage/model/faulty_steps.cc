#include "faulty_steps.h"

#include <algorithm>
#include <utility>

namespace holdfast::storage::model {

Status FaultySteps::perform(std::vector<Step> steps) {
  if (performing) {
    std::vector<std::string> labels;
    for (const Step& step : steps) labels.emplace_back(step.label);
    performing(labels);
  }
  const auto find = [&](const std::string& number) {
    return std::find_if(steps.begin(), steps.end(),
                        [&](const Step& step) { return step.label.substr(0, step.label.find(' ')) == number; });
  };
  const auto step = fault.kind == Fault::Kind::none ? steps.end() : find(fault.step);
  if (step != steps.end() && fault.kind == Fault::Kind::leave_out) {
    steps.erase(step);
  } else if (step != steps.end()) {
    const auto after = find(fault.after);
    if (after != steps.end()) std::rotate(step, step + 1, after + 1);
  }
  return StepRunner::perform(std::move(steps));
}

void FaultySteps::together(const std::function<void()>& first, const std::function<void()>& second) {
  first();
  second();
}

}  // namespace holdfast::storage::model
