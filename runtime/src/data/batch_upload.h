// How batches come to a GPU beside the work that is under way there: on a stream of their own.
//
// Their memory is given out on that stream, so a batch that the program dropped may be overwritten by a later one as
// soon as this stream says. That is safe where the program uses batches on the current stream: before a batch is
// copied, the stream waits for all that was asked of the current one so far, and what was dropped was used before that.
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
  /// Runs `copy`, whose copies to the device wait for nothing that is asked of it later.
  void begin(const std::function<void()>& copy);
  /// Lets the current stream wait for the copies of the last begin(); the program does not wait.
  void arrive();

 private:
  c10::Device device_;
  c10::Stream stream_;
  std::optional<c10::Event> done_;
};

}  // namespace holdfast
