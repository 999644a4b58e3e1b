// Asks the cloud, on a thread of its own, whether it is about to take this machine back. Training never waits for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "notices/notice_source.h"

namespace holdfast {

class NoticeWatch {
 public:
  /// `source`: of `cloud`, a name of Platform::cloud.
  NoticeWatch(std::string cloud, std::unique_ptr<NoticeSource> source);
  /// Cancels the request in progress.
  ~NoticeWatch();
  NoticeWatch(const NoticeWatch&) = delete;
  NoticeWatch& operator=(const NoticeWatch&) = delete;

  const std::string& cloud() const { return cloud_; }
  std::string title() const { return source_->title(); }
  /// The cloud's notice once there is one; it stays.
  Notice notice() const;
  /// When it arrived.
  std::chrono::steady_clock::time_point arrived() const;
  /// Calls `say` with what happened since the last call: the service does not answer, or answers again. Each is
  /// reported once.
  void report(const std::function<void(const std::string&)>& say);

 private:
  void watch();
  void note(const storage::Result<Notice>& answer);

  const std::string cloud_;
  const std::unique_ptr<NoticeSource> source_;
  mutable std::mutex mutex_;
  std::condition_variable ends_;
  bool is_over_ = false;
  bool is_silent_ = false;  // the service did not answer the last time
  Notice notice_;
  std::chrono::steady_clock::time_point arrived_;
  std::vector<std::string> lines_;
  std::thread thread_;
};

}  // namespace holdfast
