#include "checkpoint/base_copy.h"

#include <fmt/format.h>

#include <boost/filesystem/operations.hpp>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <utility>

#include "checkpoint/store_files.h"
#include "holdfast/storage/readers/version_reader.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/text/units.h"
#include "holdfast/storage/tiers/mirror.h"
#include "process/detached_task.h"

namespace holdfast {

namespace {

storage::Status too_little() {
  return {storage::StatusCode::no_space, "too little space is free to keep it beside the versions to come"};
}

}  // namespace

struct BaseCopy::Shared {
  std::unique_ptr<storage::Store> from, home;
  storage::Uid version;
  storage::SessionOrder session;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t pieces = 0;
  bool is_cancelled = false;
  bool is_over = false;
  std::string outcome;
};

BaseCopy::BaseCopy(const std::string& from, const std::string& home, const storage::Uid& version,
                   const storage::SessionOrder& session)
    : shared_(std::make_shared<Shared>()) {
  shared_->from = storage::open_file_store(from, {.read_only = true}, store_files());
  shared_->home = storage::open_file_store(home, {}, store_files());
  shared_->version = version;
  shared_->session = session;
  (void)run_detached("to bring a version home", [shared = shared_] {
    try {
      run(*shared);
    } catch (const std::exception& error) {  // no memory
      const std::lock_guard lock(shared->mutex);
      shared->outcome = fmt::format("version {} was not copied home: {}", shared->version.short_text(), error.what());
    }
    const std::lock_guard lock(shared->mutex);
    shared->is_over = true;
    shared->changed.notify_all();
  });
}

BaseCopy::~BaseCopy() { cancel(); }

// Saving comes first: a copy must leave room for two more versions of its size.
bool BaseCopy::is_room(const Shared& shared) {
  const auto version = storage::VersionReader::open(*shared.from, shared.version);
  boost::system::error_code error;
  const auto space = boost::filesystem::space(storage::Path(shared.home->location()), error);
  if (!version || error) return true;  // the copy finds out
  std::uint64_t bytes = 0;
  for (const storage::FileEntry& file : version->manifest().files) bytes += file.bytes;
  return space.available / 3 >= bytes;
}

void BaseCopy::run(Shared& shared) {
  const auto begin = std::chrono::steady_clock::now();
  storage::MirrorOptions options;
  options.session = shared.session;
  options.drops = false;  // retention at home is the writer's
  options.proceed = [&shared](std::uint64_t) {
    const std::lock_guard lock(shared.mutex);
    ++shared.pieces;
    return !shared.is_cancelled;
  };
  storage::Mirror home(*shared.from, *shared.home, options);
  const auto copied =
      is_room(shared) ? home.copy(shared.version) : storage::Result<storage::MirroredVersion>(too_little());
  const std::lock_guard lock(shared.mutex);
  // It is not needed any more if another session owns the run, or if the place has dropped it for a newer one.
  if (shared.is_cancelled || copied.code() == storage::StatusCode::superseded ||
      copied.code() == storage::StatusCode::not_found) {
    return;
  }
  const std::string version = shared.version.short_text(), to = shared.home->location();
  shared.outcome = copied ? fmt::format("version {} is also in {} ({}): {} in {}", version, to, copied->durability,
                                        storage::format_bytes(copied->bytes),
                                        storage::format_duration(std::chrono::steady_clock::now() - begin))
                          : fmt::format("version {} was not copied to {}: {}; it is still in {}", version, to,
                                        copied.status().message(), shared.from->location());
}

std::string BaseCopy::take_outcome() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->outcome, {});
}

bool BaseCopy::wait_for(std::chrono::milliseconds time) const {
  std::unique_lock lock(shared_->mutex);
  return shared_->changed.wait_for(lock, time, [&] { return shared_->is_over; });
}

std::uint64_t BaseCopy::pieces() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->pieces;
}

void BaseCopy::cancel() {
  const std::lock_guard lock(shared_->mutex);
  shared_->is_cancelled = true;
}

}  // namespace holdfast
