// Copies batches to a GPU on a separate stream, concurrently with other work on the GPU.
//
// The memory of batches is allocated on that stream, so a later batch may overwrite a batch that the program dropped as
// soon as this stream allows. That is safe if the program uses batches on the current stream: before a batch is copied,
// the stream waits for all work that the current stream has so far, which includes every use of a dropped batch.
// Threads: one at a time.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <functional>
#include <optional>

namespace holdfast {

class BatchUpload {
 public:
  explicit BatchUpload(c10::Device device);
  /// Runs `copy`. Its copies to the device wait only for work that the current stream has now, not for later work.
  void begin(const std::function<void()>& copy);
  /// Makes the current stream wait for the copies of the last begin(); the program does not wait.
  void arrive();

 private:
  c10::Device device_;
  c10::Stream stream_;
  std::optional<c10::Event> done_;
};

}  // namespace holdfast
