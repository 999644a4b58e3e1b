#include "launch/teardown.h"

#include <csignal>

namespace holdfast::tools {

void Teardown::begin(Clock::time_point now) {
  if (!next_at_) next_at_ = now + kByThemselves;
}

int Teardown::due(Clock::time_point now) {
  if (over_ || !next_at_ || now < *next_at_) return 0;
  if (terminated_) {
    over_ = true;
    return SIGKILL;
  }
  terminated_ = true;
  next_at_ = now + grace_;
  return SIGTERM;
}

void Teardown::delay(Clock::duration by) {
  if (next_at_) *next_at_ += by;
}

}  // namespace holdfast::tools
