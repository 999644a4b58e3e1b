// Requests to a cloud's metadata service: HTTP to an address that only this machine can reach, never through a proxy.
//
// Threads: one at a time; cancel() from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "holdfast/storage/status.h"

namespace holdfast {

struct MetadataAnswer {
  long status = 0;                             // of HTTP: 200, 404
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

class MetadataClient {
 public:
  /// `base`: the service's address, "http://169.254.169.254".
  explicit MetadataClient(std::string base);
  ~MetadataClient();
  MetadataClient(const MetadataClient&) = delete;
  MetadataClient& operator=(const MetadataClient&) = delete;

  /// An answer with any status is ok; an answer over 1 MiB is not. `unreadable`: there was none within `patience`, or
  /// it was cancelled. Headers are whole lines, "Metadata: true".
  storage::Result<MetadataAnswer> get(const std::string& path, const std::vector<std::string>& headers,
                                      std::chrono::milliseconds patience);
  storage::Result<MetadataAnswer> put(const std::string& path, const std::vector<std::string>& headers,
                                      std::chrono::milliseconds patience);

  /// Requests in progress and later ones end at once.
  void cancel();
  const std::string& base() const { return base_; }

 private:
  storage::Result<MetadataAnswer> ask(const char* method, const std::string& path,
                                      const std::vector<std::string>& headers, std::chrono::milliseconds patience);

  std::string base_;
  void* requests_;  // CURLM: its wait can be ended from another thread
  std::atomic<bool> cancelled_{false};
};

}  // namespace holdfast
