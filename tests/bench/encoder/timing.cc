#include "timing.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

namespace encoder_bench {

double milliseconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

Mark::Mark(c10::Device device) : time_(Clock::now()) {
  if (!device.is_cuda()) return;
  event_ = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // with timing
  event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

double Mark::milliseconds_to(const Mark& later) const {
  return event_ ? event_->elapsedTime(*later.event_) : milliseconds_between(time_, later.time_);
}

}  // namespace encoder_bench
