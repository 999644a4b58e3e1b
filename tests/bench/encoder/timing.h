// Times in the order of a device's work.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <memory>
#include <vector>

namespace encoder_bench {

using Clock = std::chrono::steady_clock;

double milliseconds_between(Clock::time_point begin, Clock::time_point end);
double median_of(std::vector<double> values);

/// Waits until the device has done all its work.
void synchronize(c10::Device device);

/// A point in the order of the device's work; making one does not wait.
class Mark {
 public:
  explicit Mark(c10::Device device);
  /// REQUIRES: the device has passed both.
  double milliseconds_to(const Mark& later) const;

 private:
  Clock::time_point time_;
  std::shared_ptr<c10::Event> event_;
};

}  // namespace encoder_bench
