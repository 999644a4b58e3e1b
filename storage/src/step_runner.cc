#include "holdfast/storage/step_runner.h"

#include <exception>
#include <thread>

#include "start_thread.h"

namespace holdfast::storage {

Status StepRunner::perform(std::vector<Step> steps) {
  for (const Step& step : steps) {
    if (Status status = step.run(); !status.ok()) return status;
  }
  return {};
}

void StepRunner::together(const std::function<void()>& first, const std::function<void()>& second) {
  std::exception_ptr failure;
  const auto guarded = [&] {
    try {
      first();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  std::thread beside = start_thread(guarded);
  const bool alone = !beside.joinable();
  if (alone) first();
  try {
    second();
  } catch (...) {
    if (!alone) beside.join();
    throw;
  }
  if (!alone) beside.join();
  if (failure) std::rethrow_exception(failure);
}

StepRunner& steps_in_order() {
  static StepRunner& instance = *new StepRunner;
  return instance;
}

}  // namespace holdfast::storage
