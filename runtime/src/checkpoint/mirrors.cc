#include "checkpoint/mirrors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <condition_variable>
#include <exception>
#include <future>
#include <mutex>
#include <utility>

#include "checkpoint/run_search.h"
#include "checkpoint/store_files.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/text/plural.h"
#include "holdfast/storage/text/units.h"
#include "holdfast/storage/tiers/mirror.h"
#include "holdfast/storage/tiers/mirror_hint.h"
#include "process/detached_task.h"

namespace holdfast {

using storage::Status;
using storage::StatusCode;

namespace {

constexpr std::chrono::seconds kLongestPause{300};
constexpr int kLastAttempts = 3;

std::chrono::seconds pause_before_attempt(int failures) {
  return std::min(kLongestPause, std::chrono::seconds(10) * (1 << std::min(failures - 1, 5)));
}

// Storage names the option of the home in its remedies.
Status of_mirror(const Status& status) {
  if (status.ok()) return status;
  std::string message = status.message();
  constexpr std::string_view kOfHome = "--holdfast.dir";
  if (const auto at = message.find(kOfHome); at != std::string::npos) {
    message.replace(at, kOfHome.size(), "--holdfast.mirror");
  }
  return {status.code(), message};
}

// An unmounted mount point is an empty folder on the system's own disk, and must not be taken for an empty mirror.
Status check_mounted(const storage::Path& folder) {
  namespace fs = boost::filesystem;
  boost::system::error_code error;
  const fs::path parent = folder.parent_path();
  if (fs::exists(folder, error) || !fs::is_directory(parent, error) || !fs::is_empty(parent, error)) return {};
  struct stat of_parent {
  }, of_system{};
  if (::stat(parent.c_str(), &of_parent) != 0 || ::stat("/", &of_system) != 0) return {};
  if (of_parent.st_dev != of_system.st_dev) return {};
  return {StatusCode::unreadable,
          fmt::format("{0} is empty and on the system's own disk: mount the drive that belongs there, or make {1}",
                      parent.string(), folder.string())};
}

Status no_answer(const std::string& place, std::chrono::milliseconds waited) {
  return {StatusCode::unreadable, fmt::format("{} did not answer within {}", place, storage::format_duration(waited))};
}

}  // namespace

/// One mirror, its thread, and what they share. The thread keeps it alive.
class Mirrors::Copier {
 public:
  Copier(std::shared_ptr<storage::Store> home, const std::string& folder, const SessionOptions& options)
      : home_(std::move(home)),
        far_(storage::open_file_store(storage::Path(folder) / options.run, {}, store_files())),
        searched_(storage::open_file_store(storage::Path(folder) / options.run, {}, store_files())),
        keep_(options.keep) {}

  /// What the session reads; the thread has a store object of its own.
  storage::Store& searched() { return *searched_; }
  std::string place() const { return far_->location(); }
  /// Makes the mirror's folders and lists its journal, so that what hangs does so here.
  Status reach() {
    if (Status status = check_mounted(storage::Path(place()).parent_path()); !status.ok()) return status;
    if (Status status = searched_->prepare(); !status.ok()) return status;
    const auto listed = searched_->list("journal");
    return listed ? Status() : listed.status();
  }

  /// `was_read`: the session has seen the mirror's journal, and has announced itself there.
  static void start(const std::shared_ptr<Copier>& copier, const storage::SessionOrder& session, bool was_read) {
    copier->session_ = session;
    copier->was_read_ = was_read;
    copier->runs_ = true;
    (void)run_detached("to copy versions to a mirror", [copier] {
      try {
        copier->run();
      } catch (const std::exception& error) {  // no memory
        copier->set_failure(error.what());
        copier->end_of_thread();
      }
    });
  }

  void saved(const storage::Uid& version) {
    const std::lock_guard lock(mutex_);
    newest_ = version;
    if (wanted_) ++skipped_;
    wanted_ = version;
    changed_.notify_all();
  }

  void add_in_use(std::set<storage::Uid>& versions) const {
    const std::lock_guard lock(mutex_);
    if (wanted_) versions.insert(*wanted_);
    if (copied_now_) versions.insert(*copied_now_);
  }

  std::vector<std::string> take_news() {
    const std::lock_guard lock(mutex_);
    return std::exchange(news_, {});
  }

  std::optional<std::string> superseded() const {
    const std::lock_guard lock(mutex_);
    return superseded_;
  }

  void end() {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    changed_.notify_all();
  }

  void cancel() {
    const std::lock_guard lock(mutex_);
    ends_ = cancelled_ = true;
    changed_.notify_all();
  }

  /// True as soon as the thread is over.
  bool wait_for(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [&] { return !runs_; });
  }

  std::uint64_t pieces() const {
    const std::lock_guard lock(mutex_);
    return pieces_;
  }

  /// What the mirror lacks at the end, and why; empty if it holds the newest version.
  std::string shortfall() const {
    const std::lock_guard lock(mutex_);
    if (mirrored_ == newest_) return {};
    const std::string why = failure_.empty() ? "the copy was not finished in time" : failure_;
    return mirrored_ ? fmt::format("{} lacks version {}; its newest is {}: {}", place(), newest_->short_text(),
                                   mirrored_->short_text(), why)
                     : fmt::format("{} lacks version {}: {}", place(), newest_->short_text(), why);
  }

 private:
  void run() {
    storage::MirrorOptions options;
    options.session = session_;
    options.retention.keep_last = keep_;
    options.is_announced = was_read_;
    options.proceed = [this](std::uint64_t) {
      const std::lock_guard lock(mutex_);
      ++pieces_;
      return !cancelled_;
    };
    storage::Mirror mirror(*home_, *far_, options);
    bool is_open = false;
    int failures = 0;
    while (const auto version = next(is_open, failures)) {
      Status status = is_open ? Status() : check_mounted(storage::Path(place()).parent_path());
      if (status.ok() && !is_open) status = of_mirror(mirror.open());
      is_open = is_open || status.ok();
      if (status.ok() && version->seq > 0) status = copy(mirror, *version);
      if (status.ok()) {
        if (std::exchange(failures, 0) > 0) add_news(fmt::format("mirror {} works again", place()));
        continue;
      }
      if (status.code() == StatusCode::superseded) {
        give_up(status, /*is_later=*/is_open || was_read_);
        break;
      }
      if (failures++ == 0 && !is_cancelled()) {
        add_news(fmt::format("mirror {} fails: {}; training continues, and the mirror is tried again", place(),
                             status.message()));
      }
      const std::lock_guard lock(mutex_);
      failure_ = status.message();
      if (!wanted_ && version->seq > 0) wanted_ = *version;
    }
    if (is_open && !is_cancelled()) {
      if (const Status status = mirror.copy_records(); !status.ok()) {
        add_news(fmt::format("mirror {} lacks metrics and logs: {}", place(), status.message()));
      }
    }
    end_of_thread();
  }

  void set_failure(const std::string& why) {
    const std::lock_guard lock(mutex_);
    failure_ = why;
  }

  void end_of_thread() {
    const std::lock_guard lock(mutex_);
    copied_now_.reset();
    runs_ = false;
    changed_.notify_all();
  }

  // A session that began later continues this run, so this one stops. The history of a mirror that could not be read at
  // the start may be older than this session: then only the mirror is given up.
  void give_up(const Status& superseded, bool is_later) {
    const std::lock_guard lock(mutex_);
    failure_ = superseded.message();
    if (is_later) {
      superseded_ = superseded.message();
    } else {
      news_.push_back(fmt::format(
          "nothing is copied to {}, because it has a history that this session could not read when it began: {}; "
          "training continues. Start the program again to choose among the versions of both places",
          place(), superseded.message()));
    }
  }

  /// Waits for something to do: the version to copy, or a number of 0 where only the mirror itself must be opened.
  /// Empty at the end.
  std::optional<storage::Uid> next(bool is_open, int failures) {
    std::unique_lock lock(mutex_);
    copied_now_.reset();
    if (failures > 0) {
      const bool ended_before = ends_;
      if (ended_before && ++attempts_at_the_end_ > kLastAttempts) return std::nullopt;
      const auto pause = ended_before ? std::chrono::seconds(1) : pause_before_attempt(failures);
      changed_.wait_for(lock, pause, [&] { return cancelled_ || (ends_ && !ended_before); });
    }
    if (is_open) changed_.wait(lock, [&] { return wanted_ || ends_; });
    if (cancelled_ || (ends_ && is_open && !wanted_)) return std::nullopt;
    copied_now_ = std::exchange(wanted_, std::nullopt);
    return copied_now_ ? *copied_now_ : storage::Uid{};
  }

  /// Ok also where this version cannot be copied, but a later one may be.
  Status copy(storage::Mirror& mirror, const storage::Uid& version) {
    const Clock::time_point begin = Clock::now();
    const auto mirrored = mirror.copy(version);
    if (mirrored.code() == StatusCode::not_found || mirrored.code() == StatusCode::corrupt ||
        mirrored.code() == StatusCode::unsupported) {
      if (mirrored.code() == StatusCode::corrupt) {
        add_news(fmt::format("version {} is not copied to {}: {}", version.short_text(), place(),
                             mirrored.status().message()));
      }
      set_failure(mirrored.status().message());
      return {};
    }
    if (!mirrored) return mirrored.status();
    write_hint(mirror);
    if (!mirrored->dropping.ok()) {
      add_news(fmt::format("old versions stay in {}: {}", place(), mirrored->dropping.message()));
    }
    for (const storage::Uid& end : mirrored->other_lines) {
      if (!reported_lines_.insert(end).second) continue;
      add_news(
          fmt::format("version {} in {} is not a part of what this run continues: the run was continued in two "
                      "places apart. It is kept there; to continue from it instead: --holdfast.from {}",
                      end.short_text(), place(), end.short_text()));
    }
    std::uint64_t skipped = 0;
    {
      const std::lock_guard lock(mutex_);
      mirrored_ = version;
      failure_.clear();
      skipped = std::exchange(skipped_, 0);
    }
    std::string line =
        fmt::format("version {} is also in {} ({}): {} in {}", version.short_text(), place(), mirrored->durability,
                    storage::format_bytes(mirrored->bytes), storage::format_duration(Clock::now() - begin));
    if (skipped > 0) {
      line += fmt::format("; {} before it {} not copied, because saving is faster than this mirror",
                          storage::plural(skipped, "version"), skipped == 1 ? "was" : "were");
    }
    add_news(line);
    return {};
  }

  void write_hint(const storage::Mirror& mirror) {
    storage::MirrorHint hint{place(), {}};
    for (const storage::Uid& uid : mirror.versions()) hint.versions[uid] = mirror.durability();
    (void)storage::write_mirror_hint(*home_, hint);
  }

  void add_news(std::string line) {
    const std::lock_guard lock(mutex_);
    news_.push_back(std::move(line));
  }

  bool is_cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  const std::shared_ptr<storage::Store> home_;
  const std::shared_ptr<storage::Store> far_, searched_;
  const std::uint64_t keep_;
  bool was_read_ = true;
  storage::SessionOrder session_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<storage::Uid> wanted_;      // to be copied next
  std::optional<storage::Uid> copied_now_;  // being copied
  std::optional<storage::Uid> newest_;      // acknowledged at home
  std::optional<storage::Uid> mirrored_;    // the last one that arrived
  std::string failure_;                     // of the last attempt; empty after a success
  std::uint64_t skipped_ = 0;
  std::uint64_t pieces_ = 0;  // that were copied or read back: shows that the mirror answers
  std::vector<std::string> news_;
  std::set<storage::Uid> reported_lines_;  // the copier's thread alone uses it
  std::optional<std::string> superseded_;
  int attempts_at_the_end_ = 0;
  bool ends_ = false;
  bool cancelled_ = false;
  bool runs_ = false;
};

Mirrors::Mirrors(std::shared_ptr<storage::Store> home, const SessionOptions& options)
    : home_(std::move(home)), run_(options.run), search_(options.search) {
  for (const std::string& folder : options.mirror) {
    copiers_.push_back(std::make_shared<Copier>(home_, folder, options));
  }
}

Mirrors::~Mirrors() {
  for (const auto& copier : copiers_) copier->cancel();
}

std::vector<storage::OtherPlace> Mirrors::places(std::chrono::milliseconds patience) {
  std::vector<storage::OtherPlace> places;
  // prepare() needs the folder that the mirror's lies in, so a drive that is not mounted is not taken for an empty one.
  std::vector<std::future<Status>> prepared;
  for (const auto& copier : copiers_) {
    prepared.push_back(run_detached("to reach a mirror", [copier] { return copier->reach(); }));
  }
  std::future<RunSearch> found;
  if (!search_.empty())
    found = run_detached("to search for runs", [roots = search_, run = run_] { return find_runs(roots, run); });
  const Clock::time_point until = Clock::now() + patience;
  for (std::size_t i = 0; i < copiers_.size(); ++i) {
    const bool answered = prepared[i].wait_until(until) == std::future_status::ready;
    const Status reached = answered ? of_mirror(prepared[i].get()) : no_answer(copiers_[i]->place(), patience);
    places.push_back({&copiers_[i]->searched(), reached, &copiers_[i]->searched()});
  }
  if (!found.valid()) return places;
  const bool was_searched = found.wait_until(until) == std::future_status::ready;
  const RunSearch search =
      was_searched ? found.get() : RunSearch{{}, no_answer(fmt::format("{}", fmt::join(search_, ", ")), patience)};
  for (const storage::Path& folder : search.found) {
    searched_.push_back(storage::open_file_store(folder, {.read_only = true}, store_files()));
    places.push_back({searched_.back().get(), {}, nullptr});
  }
  if (!search.complete.ok()) {
    searched_.push_back(storage::open_file_store(search_.front(), {.read_only = true}, store_files()));
    places.push_back({searched_.back().get(), search.complete, nullptr});
  }
  return places;
}

void Mirrors::start(const storage::RunWriter& writer) {
  for (const auto& copier : copiers_) Copier::start(copier, writer.order(), writer.was_read(copier->searched()));
}

void Mirrors::bring_home(const storage::RunWriter& writer) {
  const storage::Store* const place = writer.base_place();
  if (place == nullptr || place == home_.get()) return;
  base_copy_.emplace(place->location(), home_->location(), *writer.base(), writer.order());
}

void Mirrors::saved(const storage::Uid& version) {
  has_saved_ = true;
  if (base_copy_) base_copy_->cancel();  // not needed any more
  for (const auto& copier : copiers_) copier->saved(version);
}

std::set<storage::Uid> Mirrors::in_use() const {
  std::set<storage::Uid> versions;
  for (const auto& copier : copiers_) copier->add_in_use(versions);
  return versions;
}

void Mirrors::report(const Say& say) {
  if (base_copy_) {
    if (const std::string outcome = base_copy_->take_outcome(); !outcome.empty()) say(outcome);
  }
  for (const auto& copier : copiers_) {
    for (const std::string& line : copier->take_news()) say(line);
  }
}

std::optional<std::string> Mirrors::superseded() const {
  for (const auto& copier : copiers_) {
    if (auto by = copier->superseded()) return by;
  }
  return std::nullopt;
}

// Waits until the copy is over; gives it up after `patience` without progress, or at `until()`.
template <class Copy>
void Mirrors::wait_for(Copy& copy, const std::string& what, const Until& until, std::chrono::milliseconds patience,
                       const Say& say) {
  constexpr std::chrono::milliseconds kBetweenLooks{200};
  constexpr std::chrono::seconds kUntilReported{2};
  std::uint64_t pieces = copy.pieces();
  const Clock::time_point begin = Clock::now();
  Clock::time_point last = begin;
  bool is_reported = false;
  while (!copy.wait_for(kBetweenLooks)) {
    const Clock::time_point now = Clock::now();
    const std::uint64_t pieces_now = copy.pieces();
    if (std::exchange(pieces, pieces_now) != pieces_now) last = now;
    const auto end = until();
    if (now - last > patience || (end && now > *end)) break;
    if (!is_reported && now - begin > kUntilReported) {
      say("waiting for " + what);
      is_reported = true;
    }
  }
  copy.cancel();
  (void)copy.wait_for(std::chrono::seconds(1));
}

void Mirrors::finish_base(const Until& until, std::chrono::milliseconds patience, const Say& say) {
  if (!base_copy_) return;
  // Home has something newer than the base once a version was saved.
  if (!has_saved_) {
    wait_for(*base_copy_, "the copy of the version that was resumed to " + home_->location(), until, patience, say);
  }
  if (const std::string outcome = base_copy_->take_outcome(); !outcome.empty()) say(outcome);
  base_copy_.reset();
}

void Mirrors::finish(const Until& until, std::chrono::milliseconds patience, const Say& say) {
  for (const auto& copier : copiers_) copier->end();
  for (const auto& copier : copiers_) wait_for(*copier, "mirror " + copier->place(), until, patience, say);
  for (const auto& copier : copiers_) {
    for (const std::string& line : copier->take_news()) say(line);
    if (const std::string lacks = copier->shortfall(); !lacks.empty()) say(lacks);
  }
}

}  // namespace holdfast
