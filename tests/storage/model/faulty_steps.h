// Performs the protocols' steps with one fault, in one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "holdfast/storage/step_runner.h"

namespace holdfast::storage::model {

/// One protocol with one of its steps left out, or done right after a later one.
struct Fault {
  enum class Kind { none, leave_out, move };
  Kind kind = Kind::none;
  std::string step;   // the label's first word: "S5"
  std::string after;  // "S7"
};

class FaultySteps final : public StepRunner {
 public:
  Fault fault;
  /// Called with the labels of every list of steps that a protocol performs, before the fault changes it.
  std::function<void(const std::vector<std::string>&)> performing;

  Status perform(std::vector<Step> steps) override;
  /// One after the other, because a fiber's stack must not be left.
  void together(const std::function<void()>& first, const std::function<void()>& second) override;
};

}  // namespace holdfast::storage::model
