// StepRunner: performs the numbered steps of the storage library's protocols (run_writer.h, file_store.h) in order.
// Tests pass a runner of their own that kills the process between steps, leaves a step out or swaps two, which proves
// that each step is needed.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "holdfast/storage/status.h"

namespace holdfast::storage {

/// One named step of a protocol.
struct Step {
  std::string_view label;  // "S5 publish the manifest"
  std::function<Status()> run;
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  /// Runs the steps in order up to the first failure, which it returns.
  virtual Status perform(std::vector<Step> steps);
  /// Runs both, at the same time if the system allows another thread; returns when both are done. An exception of
  /// either function, such as std::bad_alloc, reaches the caller.
  virtual void together(const std::function<void()>& first, const std::function<void()>& second);
};

/// The runner of production. One instance, never destroyed; any thread.
StepRunner& steps_in_order();

}  // namespace holdfast::storage
