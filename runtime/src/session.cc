#include "holdfast/runtime/session.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "holdfast/runtime/console.h"
#include "holdfast/runtime/device.h"
#include "holdfast/runtime/environment.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/metrics_writer.h"
#include "holdfast/runtime/rank_environment.h"
#include "holdfast/runtime/save_policy.h"
#include "holdfast/runtime/signals.h"
#include "holdfast/runtime/units.h"
#include "holdfast/storage/death_note.h"
#include "holdfast/storage/file_store.h"
#include "holdfast/storage/run_writer.h"
#include "launcher_progress.h"
#include "program_id.h"
#include "progress.h"
#include "store_files.h"
#include "uncaught_error.h"

namespace holdfast {
namespace {

using Clock = std::chrono::steady_clock;
using storage::StatusCode;

constexpr const char* kVersion = "0.1.0";

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

// Attempts that failed are not repeated at every step: a disk that is full stays so for a while.
std::chrono::seconds pause_after(int failures) {
  return std::chrono::seconds(std::min(300, 10 << std::min(failures - 1, 5)));
}

constexpr int kAttemptsAtTheEnd = 3;

// What the user tracks besides tensors. The run's own progress is left out: a loop that ends moves its loader on.
nlohmann::json user_values(const Captured& captured) {
  nlohmann::json values = captured.values;
  values.erase(Progress::kName);
  return values;
}

// A standard stream that the caller closed (`>&-`) leaves its number to the next file opened here, a version's payload
// for one, and whatever the program prints would go into that.
void fill_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);  // takes the lowest number that is free
  }
}

// The session's options as they say themselves; a wrong one is the user's to mend, not a program error.
OptionsRead options_or_exit(int& argc, char** argv, const SessionOptions& code) {
  try {
    OptionsRead read = read_options(argc, argv, code);
    if (read.help) {
      std::fputs(help_text(read).c_str(), stdout);
      std::exit(kDone);
    }
    parse_save_every(read.values.every);
    if (const RankEnvironment ranks = read_rank_environment(); ranks.world_size > 1) {
      throw Error(StatusCode::unsupported,
                  fmt::format("{} started {} ranks, and a session trains on one so far: start the program by itself",
                              ranks.launcher, ranks.world_size));
    }
    return read;
  } catch (const Error& error) {
    std::fprintf(stderr, "holdfast: %s\n", error.what());
    std::exit(kUsage);
  }
}

}  // namespace

struct Session::Impl {
  // A loop of the program at the session's boundaries.
  class SessionLoop final : public Loop {
   public:
    SessionLoop(Impl& session, std::size_t index) : session_(session), index_(index) {}
    void start() override;
    bool more() const override { return !session_.stop && !position().at_end(); }
    StepInfo begin_step() override;
    void end_step() override;
    void begin_epoch() override;
    void end_epoch() override;
    bool stopping() const override { return session_.stop.has_value(); }
    LoopPosition& position() const { return *session_.progress.loops[index_]; }

   private:
    Impl& session_;
    std::size_t index_;
    std::uint64_t epoch_ = 0;  // begun last
  };

  explicit Impl(SessionOptions given);

  void restore();
  storage::Status load(const storage::VersionReader& version);
  void say_start();
  Loop& add_loop(LoopPosition position);
  void boundary(const LoopPosition& loop);
  void stop_if_asked();
  bool save(const std::string& reason, bool insist);
  void prune();
  void note_step();
  bool is_inside() const { return in_step || in_epoch_body; }
  ProgressFacts progress_facts(const LoopPosition& loop) const;
  int finish();

  SessionOptions options;
  std::uint64_t asked_seed = options.seed;
  SaveEvery every;
  SignalWatch signals;
  Console console;
  c10::Device device = c10::kCPU;
  std::string device_note;
  TrackedState tracked;
  Progress progress;
  std::vector<std::unique_ptr<SessionLoop>> loops;

  std::unique_ptr<storage::Store> store;
  std::unique_ptr<storage::RunWriter> writer;
  std::unique_ptr<MetricsWriter> metrics;
  Restored restored;
  std::vector<std::string> not_exact;
  std::uint64_t base_step = 0;
  std::string base_steps_lost;  // a sentence on what the session before did not save

  LastSave last_save;
  std::string last_version;    // as users say it
  nlohmann::json last_values;  // of the last version, to see at the end whether anything changed since
  nlohmann::json pending_metrics = nlohmann::json::object();
  std::vector<std::pair<std::string, double>> last_logged;
  bool save_requested = false;
  bool in_step = false;
  bool in_epoch_body = false;
  int failures = 0;
  Clock::time_point next_attempt;
  Clock::time_point begun = Clock::now();
  Clock::time_point next_step_note;
  int saves = 0;

  std::optional<std::string> stop;  // why the run ends early
  bool superseded = false;
  std::optional<int> finished;
};

// ---------------------------------------------------------------------------------------------------------------------
// Loops

void Session::Impl::SessionLoop::start() {
  session_.restore();
  session_.progress.start(index_);
  const LoopPosition& here = position();
  // What the last version counts as done: of nested loops the epochs whose bodies are done too.
  if (here.loader != nullptr && session_.last_save.step == session_.progress.step) {
    session_.last_save.epochs = here.loader->epoch() + (here.loader->epoch_done() && !here.nested ? 1 : 0);
  }
  session_.stop_if_asked();
}

StepInfo Session::Impl::SessionLoop::begin_step() {
  session_.in_step = true;
  return {session_.progress.step + 1, position().loader != nullptr ? position().loader->epoch() : 0};
}

void Session::Impl::SessionLoop::end_step() {
  LoopPosition& here = position();
  session_.in_step = false;
  ++session_.progress.step;
  ++here.done;
  if (here.loader != nullptr) session_.progress.samples += here.loader->batch_samples();
  session_.boundary(here);
}

void Session::Impl::SessionLoop::begin_epoch() {
  epoch_ = position().loader->epoch();
  session_.in_epoch_body = true;
}

void Session::Impl::SessionLoop::end_epoch() {
  session_.in_epoch_body = false;
  LoopPosition& here = position();
  if (session_.stop) return;
  if (here.loader->epoch() == epoch_) here.loader->start_epoch(epoch_ + 1);  // the body left its epoch before the end
  session_.boundary(here);
}

Loop& Session::Impl::add_loop(LoopPosition position) {
  progress.loops.push_back(std::make_unique<LoopPosition>(position));
  loops.push_back(std::make_unique<SessionLoop>(*this, loops.size()));
  return *loops.back();
}

// ---------------------------------------------------------------------------------------------------------------------
// Start

Session::Impl::Impl(SessionOptions given) : options(std::move(given)), every(parse_save_every(options.every)) {
  if (options.deterministic) make_deterministic();
  const DeviceChoice choice = choose_device(options.device);
  device = choice.device;
  device_note = choice.note;
  if (options.threads > 0) at::set_num_threads(options.threads);
  seed_all(options.seed);
  tracked.track(Progress::kName, progress);
}

void Session::Impl::restore() {
  if (writer) return;
  const storage::Path folder = storage::Path(options.dir) / options.run;
  store = storage::open_file_store(folder, {}, store_files());

  storage::OpenRequest request;
  request.run = options.run;
  request.session = storage::random_session_id();
  request.host = host_name();
  request.pid = ::getpid();
  request.platform = "local";
  request.program = program_id();
  if (!options.from.empty()) request.from = options.from;
  request.fresh = options.fresh;
  request.take_over = options.take_over;
  request.load = [this](const storage::VersionReader& version) { return load(version); };
  request.say = [this](const std::string& line) { console.say(line); };
  writer = value_of(storage::RunWriter::open(*store, request));

  if (writer->base()) {
    storage::arm_death_note(store->location(), writer->prepare_death_note());
    report_uncaught_errors();  // before the note's own handler: a sentence of ours is no death
  } else {
    tracked.begin();
  }
  metrics = std::make_unique<MetricsWriter>(*store, writer->uid());
  console.set_log([this, name = storage::log_name(writer->uid())](std::string_view text) {
    (void)store->append(name, text);  // a log that cannot be written stops nothing
  });
  last_save = {progress.step, 0, Clock::now()};
  base_step = progress.step;
  if (writer->base()) last_values = user_values(tracked.capture());
  say_start();
  // Where no version is there, what looks like an orphan may be all that is left of one whose manifest was lost.
  if (writer->base()) {
    if (const auto orphans = writer->remove_orphans(); !orphans) console.say(orphans.status().message());
  }
  for (const std::string& warning : writer->history().warnings()) console.say(warning);
}

storage::Status Session::Impl::load(const storage::VersionReader& version) {
  const storage::Manifest& manifest = version.manifest();
  LoosenOptions loosen{options.allow_missing, options.allow_unexpected};
  if (options.load == "subset") loosen.allow_missing = loosen.allow_unexpected = {"*"};
  try {
    restored = tracked.restore(version, loosen);
    const nlohmann::json saved = manifest.made_by.value("environment", nlohmann::json::object());
    restore_environment(saved, options.threads > 0);
    if (options.deterministic) make_deterministic();  // the user's word wins over the version's
    not_exact = differences(saved, capture_environment(device));
    // Orders of samples and generators came back with the version; the seed is the one that they were made with.
    const auto seed = manifest.made_by.find("seed");
    options.seed =
        seed != manifest.made_by.end() && seed->is_number_unsigned() ? seed->get<std::uint64_t>() : asked_seed;
    if (options.seed != asked_seed) {
      restored.notes.push_back(
          fmt::format("seed {} is not used: the run goes on with its own, {}; a new seed needs a new "
                      "run (--holdfast.run) or --holdfast.fresh",
                      asked_seed, options.seed));
    }
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  last_version = manifest.uid.short_text();
  // What the session that saved it did afterwards is gone, and done again.
  if (auto hint = store->get("hints/" + manifest.uid.session + ".step"); hint.ok()) {
    const std::uint64_t reached = std::strtoull(hint->c_str(), nullptr, 10);
    if (reached > manifest.position.step) {
      base_steps_lost = fmt::format("about {} steps that were not saved are done again",
                                    format_count(reached - manifest.position.step));
    }
  }
  return {};
}

void Session::Impl::say_start() {
  StartFacts facts;
  facts.run = options.run;
  facts.device = device.is_cpu() ? fmt::format("cpu, {} threads", at::get_num_threads()) : device.str();
  facts.seed = options.seed;
  facts.place = store->location();
  facts.every = to_string(every);
  facts.differences = not_exact;
  if (writer->base()) {
    facts.resumed = fmt::format("version {}, step {}", writer->base()->short_text(), format_count(progress.step));
  }
  facts.note = device_note;
  console.say(start_line(facts));
  if (!writer->base() && writer->history().opens().size() > 1) console.say(writer->choice().reason);
  for (const storage::PassedOver& passed : writer->choice().passed_over) {
    console.say(fmt::format("version {} was passed over: {}", passed.uid.short_text(), passed.reason));
  }
  for (const std::string& note : restored.notes) console.say(note);
  if (!base_steps_lost.empty()) console.say(base_steps_lost);
}

// ---------------------------------------------------------------------------------------------------------------------
// Boundaries

void Session::Impl::boundary(const LoopPosition& loop) {
  const Clock::time_point now = Clock::now();
  storage::death_note_steps(progress.step - base_step);
  if (progress.step - base_step == storage::kPoisonSteps) storage::disarm_death_note();
  console.progress(progress.step, now, [&] { return progress_facts(loop); });
  note_step();

  Boundary here;
  here.step = progress.step;
  here.now = now;
  const bool epoch_is_over = loop.loader != nullptr && loop.loader->epoch_done();
  if (loop.loader != nullptr) here.epochs = loop.loader->epoch() + (epoch_is_over ? 1 : 0);
  here.last = loop.loader != nullptr ? here.epochs >= loop.first_epoch + loop.target : loop.at_end();

  Requests requests;
  if (const auto signal = signals.stop_signal()) requests.stop = signal_name(*signal);
  if (loop.nested && epoch_is_over) {
    // The epoch's own body is still to come, and belongs to what is saved, unless there is no time for it: a resume
    // from here does that body first.
    if (requests.stop.empty()) return;
    here.last = false;
  }
  if (signals.take_save_request()) requests.save = "SIGUSR1";
  if (save_requested) requests.save = "save_now";

  const SaveDecision decision = decide(every, here, last_save, requests);
  const bool insist = decision.stop || here.last;
  if (decision.save && (insist || !requests.save.empty() || now >= next_attempt)) {
    if (save(decision.reason, insist)) last_save.epochs = here.epochs;
  }
  if (decision.stop && !stop) stop = requests.stop;
}

void Session::Impl::stop_if_asked() {
  const auto signal = signals.stop_signal();
  if (stop || !signal) return;
  if (progress.step != last_save.step) save(std::string(signal_name(*signal)), /*insist=*/true);
  if (!stop) stop = signal_name(*signal);
}

// Says how far this session came, now and then, so that the next one can tell how much work a sudden end cost.
void Session::Impl::note_step() {
  constexpr std::chrono::seconds kBetween{5};
  const Clock::time_point now = Clock::now();
  if (now < next_step_note) return;
  next_step_note = now + kBetween;
  (void)store->put("hints/" + writer->uid().session + ".step", std::to_string(progress.step));
}

ProgressFacts Session::Impl::progress_facts(const LoopPosition& loop) const {
  ProgressFacts facts;
  facts.step = progress.step;
  if (loop.loader != nullptr) {
    const bool over = loop.loader->cursor() == 0 && loop.loader->epoch() > loop.first_epoch;
    facts.epoch = loop.loader->epoch() - loop.first_epoch + (over ? 0 : 1);
    facts.total_epochs = loop.target;
    if (loops.size() == 1) facts.total_steps = loop.target * loop.loader->batches_per_epoch();
  } else if (loops.size() == 1) {
    facts.total_steps = loop.target;
  }
  facts.values = last_logged;
  return facts;
}

bool Session::Impl::save(const std::string& reason, bool insist) {
  const int attempts = insist ? kAttemptsAtTheEnd : 1;
  for (int attempt = 1; attempt <= attempts; ++attempt) {
    const Clock::time_point begin = Clock::now();
    Captured captured = tracked.capture();
    storage::SaveRequest request;
    request.reason = reason;
    request.position.step = progress.step;
    request.position.samples = progress.samples;
    for (const auto& loop : progress.loops) {
      if (loop->started && loop->loader != nullptr) request.position.epoch = loop->loader->epoch();
    }
    request.metrics = pending_metrics;
    request.values = captured.values;
    request.made_by = {{"holdfast", kVersion}, {"seed", options.seed}, {"environment", capture_environment(device)}};
    request.tensors = std::move(captured.tensors);
    request.tied = std::move(captured.tied);
    // What a resume from here will not repeat must be in the store before the version is.
    (void)metrics->flush();

    const auto saved = writer->save(request);
    if (saved) {
      last_save = {progress.step, last_save.epochs, Clock::now()};
      last_version = saved->uid.short_text();
      last_values = user_values(captured);
      pending_metrics = nlohmann::json::object();
      save_requested = false;
      failures = 0;
      ++saves;
      tell_launcher(progress.step);
      const auto took = Clock::now() - begin;
      console.say(saved_line({last_version, progress.step, reason, saved->bytes, took, took, saved->durability}));
      prune();
      return true;
    }
    if (saved.code() == StatusCode::superseded) {
      superseded = true;
      stop = saved.status().message();
      return false;
    }
    ++failures;
    next_attempt = Clock::now() + pause_after(failures);
    console.say(fmt::format("step {} is not saved: {}{}", format_count(progress.step), saved.status().message(),
                            attempt < attempts ? "; trying again"
                            : insist           ? ""
                                               : fmt::format("; training goes on, the next attempt is in {}",
                                                             format_duration(pause_after(failures)))));
  }
  return false;
}

void Session::Impl::prune() {
  const auto dropped = writer->prune({.keep_last = options.keep});
  if (dropped) return;
  if (dropped.code() == StatusCode::superseded) {
    superseded = true;
    stop = dropped.status().message();
  } else {
    console.say("old versions stay: " + dropped.status().message());
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// End

int Session::Impl::finish() {
  if (finished) return *finished;
  if (!writer) return *(finished = kDone);  // nothing was run, so nothing is owed
  storage::disarm_death_note();

  bool saved = true;
  if (!stop) {
    const bool changed = progress.step != last_save.step || save_requested ||
                         (last_values != nullptr && user_values(tracked.capture()) != last_values);
    if (changed) saved = save("end", /*insist=*/true);
  } else {
    saved = progress.step == last_save.step;
  }
  (void)metrics->flush();

  const int code = superseded ? kSuperseded : !saved ? kNotSaved : stop ? kRunAgain : kDone;
  if (stop) {
    console.say(superseded ? *stop : end_line({*stop, progress.step, last_version, progress.step - last_save.step}));
  }
  if (!superseded) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    const storage::Status noted = writer->note(storage::NoteKind::close, {}, stop ? *stop : "end",
                                               {{"exit_code", code},
                                                {"seconds", seconds},
                                                {"steps", progress.step - base_step},
                                                {"saves", saves},
                                                {"lost_steps", progress.step - last_save.step}});
    if (!noted.ok()) console.say("the session could not be closed in the journal: " + noted.message());
    (void)store->remove("hints/" + writer->uid().session + ".step");
  }
  return *(finished = code);
}

// ---------------------------------------------------------------------------------------------------------------------
// Session

Session Session::start(int& argc, char** argv, SessionOptions options) {
  fill_standard_streams();
  report_uncaught_errors();
  OptionsRead read = options_or_exit(argc, argv, options);
  return Session(std::move(read.values));
}

Session::Session(SessionOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Session::~Session() {
  if (!impl_ || !impl_->writer || impl_->finished) return;
  storage::disarm_death_note();
  (void)impl_->metrics->flush();
  if (impl_->progress.step != impl_->last_save.step) {
    impl_->console.say(
        fmt::format("the program ended without session.finish(): {} steps since the last version are not "
                    "saved",
                    format_count(impl_->progress.step - impl_->last_save.step)));
  }
}

bool Session::restore() {
  impl_->restore();
  return impl_->writer->base().has_value();
}

void Session::save_now(nlohmann::json metrics) {
  if (!metrics.is_object()) {
    throw Error(StatusCode::invalid, "save_now takes metrics as an object of names and numbers");
  }
  impl_->pending_metrics = std::move(metrics);
  impl_->save_requested = true;
  if (impl_->is_inside()) return;
  impl_->restore();
  impl_->save("save_now", /*insist=*/false);
}

void Session::log(const nlohmann::json& values) {
  Impl& self = *impl_;
  if (!self.writer) {
    throw Error(StatusCode::invalid, "session.log() comes before the run was opened; call session.restore() first");
  }
  std::uint64_t epoch = 0;
  for (const auto& loop : self.progress.loops) {
    if (loop->started && loop->loader != nullptr) epoch = loop->loader->epoch();
  }
  (void)self.metrics->log(self.progress.step + (self.in_step ? 1 : 0), epoch, values);
  self.last_logged.clear();
  for (const auto& [name, value] : values.items()) {
    if (value.is_number()) self.last_logged.emplace_back(name, value.get<double>());
  }
}

c10::Device Session::device() const { return impl_->device; }
std::uint64_t Session::seed() const { return impl_->options.seed; }
std::uint64_t Session::step() const { return impl_->progress.step; }
bool Session::stopping() const { return impl_->stop.has_value(); }
int Session::finish() { return impl_->finish(); }

TrackedState& Session::tracked() {
  if (impl_->writer) {
    throw Error(StatusCode::invalid,
                "session.track() comes after the run was opened; track everything before the first "
                "step and before session.restore()");
  }
  return impl_->tracked;
}

Loop& Session::loader_loop(LoaderBase& loader, std::uint64_t epochs, bool nested) {
  LoopPosition position;
  position.loader = &loader;
  position.target = epochs;
  position.nested = nested;
  return impl_->add_loop(position);
}

Loop& Session::counted_loop(std::uint64_t count) {
  LoopPosition position;
  position.target = count;
  return impl_->add_loop(position);
}

void Session::print_text(const std::string& text) { impl_->console.print(text); }

}  // namespace holdfast
