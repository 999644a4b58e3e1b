#include "checkpoint/checkpoint_manager.h"

#include <unistd.h>

#include <cstdlib>

#include "checkpoint/store_files.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "process/host_name.h"
#include "process/job_id.h"
#include "process/program_id.h"
#include "process/uncaught_error.h"

namespace holdfast {

namespace {

// To answer at the start. A mounted Drive may need a minute to list a large folder for the first time.
constexpr std::chrono::seconds kToAnswer{60};

}  // namespace

CheckpointManager::CheckpointManager(const SessionOptions& options, Console& console)
    : console_(console),
      store_(storage::open_file_store(storage::Path(options.dir) / options.run, {}, store_files(), store_steps())),
      mirrors_(std::make_unique<Mirrors>(store_, options)) {}

// The console outlives the manager, and its later lines must not reach the store.
CheckpointManager::~CheckpointManager() { console_.set_log(nullptr); }

void CheckpointManager::open(const SessionOptions& options, const std::string& platform,
                             std::function<storage::Status(const storage::VersionReader&)> load) {
  storage::OpenRequest request;
  request.run = options.run;
  request.session = storage::random_session_id();
  request.host = host_name();
  request.pid = ::getpid();
  request.platform = platform;
  request.program = program_id();
  if (!options.from.empty()) request.from = options.from;
  request.fresh = options.fresh;
  request.job = job_id();
  request.take_over = options.take_over;
  request.steps = &store_steps();
  request.others = mirrors_->places(kToAnswer);
  request.load = std::move(load);
  request.say = [this](const std::string& line) { console_.say(line); };
  writer_ = detail::value_of(storage::RunWriter::open(*store_, request));

  if (writer_->base()) {
    storage::arm_death_note(store_->location(), writer_->prepare_death_note());
    report_uncaught_errors();  // runs before the note's own handler, because a reported error does not count as a death
  }
  mirrors_->start(*writer_);
  if (writer_->base_place() == store_.get()) mirrors_->saved(*writer_->base());
  metrics_ = std::make_unique<MetricsWriter>(*store_, writer_->uid());
  console_.set_log([this, name = storage::log_name(writer_->uid())](std::string_view text) {
    (void)store_->append(name, text);  // a log that cannot be written does not stop the run
  });
}

storage::VersionReader CheckpointManager::read(const storage::Uid& uid) const {
  return detail::value_of(writer_->read(uid));
}

std::string CheckpointManager::base_elsewhere() const {
  const storage::Store* const place = writer_->base_place();
  return place == nullptr || place == store_.get() ? "" : place->location();
}

storage::Result<storage::SavedVersion> CheckpointManager::save(storage::SaveRequest request) {
  (void)metrics_->flush();
  auto saved = writer_->save(std::move(request));
  if (saved) mirrors_->saved(saved->uid);
  return saved;
}

storage::Result<std::vector<storage::Uid>> CheckpointManager::prune(std::uint64_t keep) {
  return writer_->prune({.keep_last = keep}, mirrors_->in_use());
}

void CheckpointManager::close(const std::string& reason, nlohmann::json details) {
  const storage::Status noted = writer_->note(storage::NoteKind::close, {}, reason, std::move(details));
  if (!noted.ok()) console_.say("the session's end could not be written to the journal: " + noted.message());
  (void)store_->remove(hint_name(writer_->uid().session));
}

void CheckpointManager::remove_orphans() {
  // Without a version, an apparent orphan may be the remainder of a version whose manifest was lost.
  if (!writer_->base()) return;
  if (const auto orphans = writer_->remove_orphans(); !orphans) console_.say(orphans.status().message());
}

void CheckpointManager::bring_base_home() { mirrors_->bring_home(*writer_); }

void CheckpointManager::note_step(std::uint64_t step) {
  constexpr std::chrono::seconds kBetween{5};
  const auto now = std::chrono::steady_clock::now();
  if (now < next_step_note_) return;
  next_step_note_ = now + kBetween;
  (void)store_->put(hint_name(writer_->uid().session), std::to_string(step));
}

std::uint64_t CheckpointManager::steps_after(const storage::Uid& uid, std::uint64_t saved_step) const {
  const auto hint = store_->get(hint_name(uid.session));
  if (!hint.ok()) return 0;
  const std::uint64_t reached = std::strtoull(hint->c_str(), nullptr, 10);
  return reached > saved_step ? reached - saved_step : 0;
}

}  // namespace holdfast
