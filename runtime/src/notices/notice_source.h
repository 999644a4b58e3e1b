// How each cloud is asked whether it is about to take this machine back.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "holdfast/runtime/platform/surroundings.h"
#include "holdfast/storage/status.h"
#include "notices/metadata_client.h"
#include "notices/preemption_notice.h"

namespace holdfast {

class NoticeSource {
 public:
  virtual ~NoticeSource() = default;
  /// "EC2".
  virtual std::string title() const = 0;
  /// The cloud's notice, or none yet. May wait for a change, up to half a minute. Not ok: the service gave no answer,
  /// or one that is not its own; the call may be repeated.
  virtual storage::Result<Notice> ask() = 0;
  /// How long to wait between two calls.
  virtual std::chrono::milliseconds pause() const = 0;
  /// Ends a call that waits; from any thread.
  void cancel() { client_.cancel(); }

 protected:
  explicit NoticeSource(std::string base) : client_(std::move(base)) {}
  MetadataClient client_;
};

/// `cloud`: "ec2", "gce" or "azure" (Platform::cloud); null for any other. The service's address is each cloud's
/// documented one, unless a variable that the cloud's own tools also read names another:
/// AWS_EC2_METADATA_SERVICE_ENDPOINT (a URL), GCE_METADATA_HOST (a host, with a port if it is not 80).
std::unique_ptr<NoticeSource> notice_source(const std::string& cloud, const Surroundings& around);

}  // namespace holdfast
