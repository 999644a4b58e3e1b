#include "data/batch_upload.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace holdfast {

BatchUpload::BatchUpload(c10::Device device)
    : device_(device), stream_(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device)) {}

void BatchUpload::begin(const std::function<void()>& copy) {
  const c10::DeviceGuard on_device(device_);
  c10::Event before(device_.type());
  before.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  before.block(stream_);
  const c10::StreamGuard on_stream(stream_);
  copy();
  done_.emplace(device_.type());
  done_->record(stream_);
}

void BatchUpload::arrive() {
  const c10::DeviceGuard on_device(device_);
  done_->block(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

}  // namespace holdfast
