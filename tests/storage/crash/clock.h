// Stops every clock of this program while it lives, so that what is written depends on the operations alone.
#pragma once

namespace holdfast::storage::crash {

class StoppedClock {
 public:
  StoppedClock();
  ~StoppedClock();
  StoppedClock(const StoppedClock&) = delete;
  StoppedClock& operator=(const StoppedClock&) = delete;
};

}  // namespace holdfast::storage::crash
