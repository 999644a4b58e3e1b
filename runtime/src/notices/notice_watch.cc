#include "notices/notice_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "start_thread.h"

namespace holdfast {
namespace {

constexpr std::chrono::seconds kAfterSilence{5};

}  // namespace

NoticeWatch::NoticeWatch(std::string cloud, std::unique_ptr<NoticeSource> source)
    : cloud_(std::move(cloud)), source_(std::move(source)) {
  thread_ = start_thread("that watches for preemption notices", [this] { watch(); });
}

NoticeWatch::~NoticeWatch() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  ends_.notify_all();
  source_->cancel();
  thread_.join();
}

Notice NoticeWatch::notice() const {
  const std::lock_guard lock(mutex_);
  return notice_;
}

std::chrono::steady_clock::time_point NoticeWatch::arrived() const {
  const std::lock_guard lock(mutex_);
  return arrived_;
}

void NoticeWatch::report(const std::function<void(const std::string&)>& say) {
  std::vector<std::string> lines;
  {
    const std::lock_guard lock(mutex_);
    lines.swap(lines_);
  }
  for (const std::string& line : lines) say(line);
}

void NoticeWatch::watch() {
  for (;;) {
    const auto answer = source_->ask();
    std::unique_lock lock(mutex_);
    if (is_over_) return;
    note(answer);
    if (notice_) return;
    const auto pause = answer ? source_->pause() : std::max<std::chrono::milliseconds>(source_->pause(), kAfterSilence);
    if (ends_.wait_for(lock, pause, [this] { return is_over_; })) return;
  }
}

void NoticeWatch::note(const storage::Result<Notice>& answer) {
  if (answer) notice_ = *answer;
  if (notice_) arrived_ = std::chrono::steady_clock::now();
  if (answer.ok() != is_silent_) return;
  is_silent_ = !answer.ok();
  lines_.push_back(
      is_silent_ ? fmt::format("{} cannot be asked for preemption notices, so this run may not stop in time before "
                               "the machine is taken back; trying again: {}",
                               source_->title(), answer.status().message())
                 : fmt::format("{} answers again, and is asked for preemption notices", source_->title()));
}

}  // namespace holdfast
