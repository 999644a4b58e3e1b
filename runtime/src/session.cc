#include "holdfast/runtime/session.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "average_gradients.h"
#include "holdfast/runtime/amp.h"
#include "holdfast/runtime/console.h"
#include "holdfast/runtime/device.h"
#include "holdfast/runtime/environment.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/rank_environment.h"
#include "holdfast/runtime/save_policy.h"
#include "holdfast/runtime/signals.h"
#include "holdfast/runtime/units.h"
#include "holdfast/storage/death_note.h"
#include "launcher_progress.h"
#include "progress.h"
#include "rank_description.h"
#include "run_keeper.h"
#include "session_seed.h"
#include "shared_version.h"
#include "uncaught_error.h"

namespace holdfast {
namespace {

using Clock = std::chrono::steady_clock;
using storage::StatusCode;

constexpr const char* kVersion = "0.1.0";

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
    (void)read_rank_environment();
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
    SessionLoop(Impl& session, std::size_t index, Site site) : session_(session), index_(index), site_(site) {}
    void start() override;
    bool more() const override { return !session_.stop && !position().at_end(); }
    StepInfo begin_step() override;
    void end_step() override;
    void begin_epoch() override;
    void end_epoch() override;
    bool stopping() const override { return session_.stop.has_value(); }
    c10::Device device() const override { return session_.device.device; }
    LoopPosition& position() const { return *session_.progress.loops[index_]; }

   private:
    Impl& session_;
    std::size_t index_;
    Site site_;
    std::uint64_t epoch_ = 0;  // begun last
  };

  Impl(OptionsRead given, const RankEnvironment& ranks);
  ~Impl();

  bool is_main() const { return group.is_main(); }
  void require_same_options(const std::vector<OptionInForce>& in_force);
  void restore();
  void open_as_main();
  void open_as_other();
  storage::Status load(const storage::Manifest& manifest, TensorFeed* feed, const storage::VersionReader* version);
  void begin_afresh();
  void say_start();
  Loop& add_loop(LoopPosition position, Site site);
  void boundary(const LoopPosition& loop);
  StepOrder orders_here(const LoopPosition& loop, const Boundary& here);
  void start_together(const LoopPosition& loop);
  bool save(const std::string& reason, bool insist);
  bool try_save(const std::string& reason, const std::string& afterwards);
  storage::Result<storage::SavedVersion> write(const std::string& reason, Captured captured);
  void prune();
  bool is_inside() const { return in_step || in_epoch_body; }
  ProgressFacts progress_facts(const LoopPosition& loop) const;
  int finish(Site site);

  SessionOptions options;
  std::uint64_t asked_seed = options.seed;
  SaveEvery every;
  SignalWatch signals;
  Console console;
  DeviceChoice device;
  Group group;
  TrackedState tracked;
  Progress progress;
  std::vector<std::unique_ptr<SessionLoop>> loops;

  std::vector<std::shared_ptr<torch::nn::Module>> modules;  // of the pipelines
  std::vector<std::unique_ptr<Pipeline>> pipelines;

  std::unique_ptr<RunKeeper> keeper;  // rank 0's
  bool opened = false;
  bool has_base = false;  // a version was restored
  Restored restored;
  std::vector<std::string> not_exact;
  bool ranks_changed = false;
  std::uint64_t base_step = 0;
  std::string base_steps_lost;  // a sentence on what the session before did not save

  LastSave last_save;
  std::string last_version;    // as users say it
  nlohmann::json last_values;  // of the last version, to see at the end whether anything changed since
  nlohmann::json pending_metrics = nlohmann::json::object();
  std::vector<std::pair<std::string, double>> last_logged;
  bool save_requested = false;
  StepOrder asked;           // what the ranks agreed on and have not done yet
  bool wish_is_out = false;  // this rank asked for something and has no answer yet
  bool stop_was_wished = false;
  bool in_step = false;
  bool in_epoch_body = false;
  StepInfo step_info;
  Site here;  // in the program: the loop that runs, or finish()
  bool gradients_were_compared = false;
  int failures = 0;
  Clock::time_point next_attempt;
  Clock::time_point begun = Clock::now();
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
  session_.here = site_;
  session_.start_together(here);
}

StepInfo Session::Impl::SessionLoop::begin_step() {
  session_.in_step = true;
  const LoopPosition& here = position();
  const std::uint64_t number = session_.progress.step + 1;
  if (here.loader != nullptr) return session_.step_info = StepInfo(step_facts(*here.loader, number));
  StepFacts facts;
  facts.number = number;
  facts.steps_left = here.target - here.done - 1;
  return session_.step_info = StepInfo(facts);
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

Loop& Session::Impl::add_loop(LoopPosition position, Site site) {
  progress.loops.push_back(std::make_unique<LoopPosition>(position));
  loops.push_back(std::make_unique<SessionLoop>(*this, loops.size(), site));
  return *loops.back();
}

// ---------------------------------------------------------------------------------------------------------------------
// Start

Session::Impl::Impl(OptionsRead given, const RankEnvironment& ranks)
    : options(std::move(given.values)),
      every(parse_save_every(options.every)),
      console(stderr, ranks.rank == 0 ? Console::Style::automatic : Console::Style::silent),
      device((options.deterministic ? make_deterministic() : void(),
              choose_device(options.device, ranks.local_rank, ranks.local_world_size))),
      group([&] {
        // The others may not come for minutes; whoever stops this job does not wait so long.
        const NothingToSave scope(fmt::format("rank {} was told to stop before all ranks had met: nothing was begun; "
                                              "run the same command again (exit code {})",
                                              ranks.rank, static_cast<int>(kRunAgain)),
                                  kRunAgain);
        return Group(ranks, device.device, {.say = [this](const std::string& line) { console.say(line); }});
      }()),
      tracked(RankPlace{ranks.rank, ranks.world_size, device.device}) {
  require_same_options(given.in_force);
  if (ranks.world_size > 1) {
    tell_before_death([this](const std::string& why) {
      group.fail(fmt::format("rank {} failed: {}", group.rank(), why), /*leaves=*/true);
    });
  }
  if (options.threads > 0) {
    at::set_num_threads(options.threads);
  } else if (ranks.local_world_size > 1 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    // The ranks of a host share its cores.
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    at::set_num_threads(std::max(1, cores / ranks.local_world_size));
  }
  seed_all(options.seed);  // alike on all ranks, so that parameters are
  set_session_seed(options.seed);
  tracked.track(Progress::kName, progress);
}

Session::Impl::~Impl() {
  tell_before_death({});
  set_session_seed({});
}

void Session::Impl::require_same_options(const std::vector<OptionInForce>& in_force) {
  if (group.world_size() == 1) return;
  std::vector<std::array<std::string, 3>> mine;  // name, value, origin
  for (const OptionInForce& option : in_force) {
    // What a configuration file says must be alike, not where each host keeps it.
    if (option.name != "config") mine.push_back({option.name, option.value, option.origin});
  }
  const auto all = group.all_gather(mine);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const auto& [name, expected, origin] = all[0][i];
      const auto& [here_name, here, here_origin] = all[rank].at(i);
      if (here_name == name && here == expected) continue;
      throw Error(StatusCode::invalid, fmt::format("option {} is '{}' ({}) on rank 0 and '{}' ({}) on rank {}: start "
                                                   "all ranks with the same options",
                                                   name, expected, origin, here, here_origin, rank));
    }
  }
}

void Session::Impl::restore() {
  if (opened) return;
  if (is_main()) {
    open_as_main();
  } else {
    open_as_other();
  }
  opened = true;
  if (!has_base) begin_afresh();
  last_save = {progress.step, 0, Clock::now()};
  base_step = progress.step;
  if (has_base) last_values = user_values(tracked.capture());
  if (!is_main()) return;
  say_start();
  keeper->remove_orphans();
  for (const std::string& warning : keeper->writer().history().warnings()) console.say(warning);
}

// The others follow rank 0 through the versions that it tries: a message for each, and one for the outcome.
void Session::Impl::open_as_main() {
  keeper = std::make_unique<RunKeeper>(options, console);
  try {
    keeper->open(options, [this](const storage::VersionReader& version) {
      if (group.world_size() == 1) return load(version.manifest(), nullptr, &version);
      (void)group.broadcast(nlohmann::json{{"load", encode(version.manifest())}});
      MainFeed feed(group, version);
      return load(version.manifest(), &feed, &version);
    });
  } catch (const RankFault&) {
    throw;
  } catch (const Error& error) {
    if (!group.fault()) {
      (void)group.broadcast(nlohmann::json{{"failed", error.what()}, {"code", static_cast<int>(error.code())}});
    }
    throw;
  }
  has_base = keeper->writer().base().has_value();
  (void)group.broadcast(nlohmann::json{{"opened", has_base}});
}

void Session::Impl::open_as_other() {
  for (;;) {
    const auto said = group.broadcast(nlohmann::json());
    if (said.contains("failed")) {
      throw Error(static_cast<StatusCode>(said.at("code").get<int>()), said.at("failed").get<std::string>());
    }
    if (said.contains("opened")) {
      has_base = said.at("opened");
      return;
    }
    const auto manifest = value_of(storage::decode_manifest(said.at("load").get<std::string>()));
    RankFeed feed(group, manifest);
    (void)load(manifest, &feed, nullptr);
  }
}

// From `feed` where there are several ranks, else straight from `version`. All ranks say the same.
storage::Status Session::Impl::load(const storage::Manifest& manifest, TensorFeed* feed,
                                    const storage::VersionReader* version) {
  LoosenOptions loosen{options.allow_missing, options.allow_unexpected};
  if (options.load == "subset") loosen.allow_missing = loosen.allow_unexpected = {"*"};
  storage::Status outcome;
  try {
    restored = feed != nullptr ? tracked.restore(manifest, loosen, *feed) : tracked.restore(*version, loosen);
    const nlohmann::json saved = manifest.made_by.value("environment", nlohmann::json::object());
    restore_environment(saved, options.threads > 0);
    if (options.deterministic) make_deterministic();  // the user's word wins over the version's
    ranks_changed = saved_world_size(manifest) != group.world_size();
    not_exact = differences(saved, capture_environment(device.device, group.world_size()));
    // Orders of samples and generators came back with the version; the seed is the one that they were made with.
    const auto seed = manifest.made_by.find("seed");
    options.seed =
        seed != manifest.made_by.end() && seed->is_number_unsigned() ? seed->get<std::uint64_t>() : asked_seed;
    set_session_seed(options.seed);
    if (options.seed != asked_seed) {
      restored.notes.push_back(
          fmt::format("seed {} is not used: the run goes on with its own, {}; a new seed needs a new "
                      "run (--holdfast.run) or --holdfast.fresh",
                      asked_seed, options.seed));
    }
  } catch (const RankFault&) {
    throw;
  } catch (const Error& error) {
    outcome = {error.code(), error.what()};
  }
  if (group.world_size() > 1) {
    const auto outcomes = group.all_gather(std::pair(static_cast<int>(outcome.code()), outcome.message()));
    for (const auto& [code, text] : outcomes) {
      if (outcome.ok() && code != 0) outcome = {static_cast<StatusCode>(code), text};
    }
  }
  if (!outcome.ok() || !is_main()) return outcome;
  last_version = manifest.uid.short_text();
  // What the session that saved it did afterwards is gone, and done again.
  base_steps_lost.clear();
  if (const auto lost = keeper->steps_after(manifest.uid, manifest.position.step); lost > 0) {
    base_steps_lost = fmt::format("about {} steps that were not saved are done again", format_count(lost));
  }
  return {};
}

void Session::Impl::begin_afresh() {
  tracked.begin();
  if (group.world_size() == 1) return;
  require_alike(group, tracked.capture(), here, "before the first step",
                "make it after Session::start, which seeds all ranks alike, and draw from no generator of your own "
                "that differs between ranks");
  seed_all(seed_of_rank(options.seed, 0, group.rank()));  // from here on ranks draw for themselves: dropout
}

void Session::Impl::say_start() {
  StartFacts facts;
  facts.run = options.run;
  facts.device = device.device.is_cpu() ? fmt::format("cpu, {} threads", at::get_num_threads()) : device.device.str();
  facts.ranks = group.world_size();
  facts.sample_exact = ranks_changed;
  facts.seed = options.seed;
  facts.place = keeper->place();
  facts.every = to_string(every);
  facts.differences = not_exact;
  const storage::RunWriter& writer = keeper->writer();
  if (writer.base()) {
    facts.resumed = fmt::format("version {}, step {}", writer.base()->short_text(), format_count(progress.step));
  }
  facts.note = device.note;
  console.say(start_line(facts));
  if (!writer.base() && writer.history().opens().size() > 1) console.say(writer.choice().reason);
  for (const storage::PassedOver& passed : writer.choice().passed_over) {
    console.say(fmt::format("version {} was passed over: {}", passed.uid.short_text(), passed.reason));
  }
  for (const std::string& note : restored.notes) console.say(note);
  if (!base_steps_lost.empty()) console.say(base_steps_lost);
}

// ---------------------------------------------------------------------------------------------------------------------
// Boundaries

// A loop begins: all ranks must begin the same one. Whoever was asked to stop meanwhile says so.
void Session::Impl::start_together(const LoopPosition& loop) {
  if (loop.loader != nullptr) loop.loader->shard(group.rank(), group.world_size());
  const auto signal = signals.stop_signal();
  const std::string mine(signal ? signal_name(*signal) : "");
  const std::string what =
      loop.loader != nullptr
          ? fmt::format("{} epochs of {} samples in batches of {}{} from epoch {} on, seed {}", loop.target,
                        loop.loader->samples_per_epoch(), loop.loader->batch_size(),
                        loop.loader->is_shuffled() ? ", shuffled," : "", loop.first_epoch, loop.loader->seed())
          : fmt::format("{} steps", loop.target);
  for (const auto& theirs : group.compare("session.steps", what, mine, here)) {
    const std::string asked_for = theirs.get<std::string>();
    if (stop || asked_for.empty()) continue;
    if (progress.step != last_save.step) save(asked_for, /*insist=*/true);
    if (!stop) stop = asked_for;
  }
}

// What all ranks are to do here for reasons that one of them may know alone: a signal, or rank 0's clock.
StepOrder Session::Impl::orders_here(const LoopPosition& loop, const Boundary& here) {
  StepOrder wish;
  if (const auto signal = signals.stop_signal()) wish.stop = signal_name(*signal);
  if (signals.take_save_request()) wish.save = "SIGUSR1";
  if (group.world_size() == 1) return wish;
  if (wish.save.empty() && is_main()) {
    SaveEvery time;
    time.time = every.time;
    Boundary inside = here;
    inside.last = false;
    wish.save = decide(time, inside, last_save, {}).reason;
  }
  // Each wish once: it is answered at a later step.
  if (stop_was_wished) wish.stop.clear();
  if (wish_is_out) wish.save.clear();
  stop_was_wished |= !wish.stop.empty();
  wish_is_out |= !wish.empty();
  const std::uint64_t left = loop.loader != nullptr ? loop.loader->batches_left() : loop.target - loop.done;
  const StepOrder order = group.at_step(progress.step, progress.step + left, wish);
  if (!order.empty()) wish_is_out = false;
  return order;
}

void Session::Impl::boundary(const LoopPosition& loop) {
  const Clock::time_point now = Clock::now();
  storage::death_note_steps(progress.step - base_step);
  if (progress.step - base_step == storage::kPoisonSteps) storage::disarm_death_note();
  console.progress(progress.step, now, [&] { return progress_facts(loop); });
  if (keeper) keeper->note_step(progress.step);

  Boundary here;
  here.step = progress.step;
  here.now = now;
  const bool epoch_is_over = loop.loader != nullptr && loop.loader->epoch_done();
  if (loop.loader != nullptr) here.epochs = loop.loader->epoch() + (epoch_is_over ? 1 : 0);
  here.last = loop.loader != nullptr ? here.epochs >= loop.first_epoch + loop.target : loop.at_end();

  if (group.world_size() > 1 && progress.step == base_step + 1 && !has_base) {
    require_alike(group, tracked.capture(), this->here, "after the first step",
                  "gradients are not averaged; call session.average_gradients(net) before optimizer.step(), or use a "
                  "pipeline with Ddp()");
  }
  const StepOrder order = orders_here(loop, here);
  if (!order.save.empty()) asked.save = order.save;
  if (!order.stop.empty()) asked.stop = order.stop;
  StepOrder requests = asked;
  if (loop.nested && epoch_is_over) {
    // The epoch's own body is still to come, and belongs to what is saved, unless there is no time for it: a resume
    // from here does that body first.
    if (requests.stop.empty()) return;
    here.last = false;
  }
  if (save_requested) requests.save = "save_now";

  SaveEvery due = every;
  if (group.world_size() > 1) due.time = {};  // rank 0's clock, by orders_here()
  const SaveDecision decision = decide(due, here, last_save, requests);
  const bool insist = decision.stop || here.last;
  if (decision.save && (insist || !requests.save.empty() || failures == 0 || group.broadcast(now >= next_attempt))) {
    if (save(decision.reason, insist)) last_save.epochs = here.epochs;
  }
  asked.save.clear();
  if (decision.stop && !stop) stop = requests.stop;
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

// All ranks call it together and get the same answer.
bool Session::Impl::save(const std::string& reason, bool insist) {
  const int attempts = insist ? kAttemptsAtTheEnd : 1;
  for (int attempt = 1; attempt <= attempts && !superseded; ++attempt) {
    const auto afterwards = attempt < attempts ? std::string("; trying again")
                            : insist           ? std::string()
                                               : fmt::format("; training goes on, the next attempt is in {}",
                                                             format_duration(pause_after(failures + 1)));
    if (try_save(reason, afterwards)) return true;
  }
  return false;
}

bool Session::Impl::try_save(const std::string& reason, const std::string& afterwards) {
  const Clock::time_point begin = Clock::now();
  if (group.world_size() > 1 && device.device.is_cuda()) {
    // What is in flight may still fail, and after a fault's abort it "succeeds" with garbage: none of that is saved.
    c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).synchronizeDevice(device.device.index());
    group.check();
  }
  Captured captured = tracked.capture();
  const nlohmann::json values = user_values(captured);
  gather_rank_state(group, captured, here);  // also the ranks' word that all of them are well
  // Rank 0 writes; the others hear what became of it.
  nlohmann::json outcome;
  if (is_main()) {
    const auto saved = write(reason, std::move(captured));
    if (saved) {
      const auto took = Clock::now() - begin;
      console.say(
          saved_line({saved->uid.short_text(), progress.step, reason, saved->bytes, took, took, saved->durability}));
      outcome = {{"code", 0}, {"text", saved->uid.short_text()}};
    } else {
      outcome = {{"code", static_cast<int>(saved.code())}, {"text", saved.status().message()}};
      if (saved.code() != StatusCode::superseded) {
        console.say(fmt::format("step {} is not saved: {}{}", format_count(progress.step), saved.status().message(),
                                afterwards));
      }
    }
  }
  if (group.world_size() > 1) outcome = group.broadcast(outcome, 0, here);

  const auto code = static_cast<StatusCode>(outcome.at("code").get<int>());
  if (code == StatusCode::ok) {
    last_save = {progress.step, last_save.epochs, Clock::now()};
    last_version = outcome.at("text");
    last_values = values;
    pending_metrics = nlohmann::json::object();
    save_requested = false;
    failures = 0;
    ++saves;
    if (is_main()) tell_launcher(progress.step);
    prune();
    return true;
  }
  if (code == StatusCode::superseded) {
    superseded = true;
    stop = outcome.at("text").get<std::string>();
    return false;
  }
  ++failures;
  next_attempt = Clock::now() + pause_after(failures);
  return false;
}

storage::Result<storage::SavedVersion> Session::Impl::write(const std::string& reason, Captured captured) {
  storage::SaveRequest request;
  request.reason = reason;
  request.position.step = progress.step;
  request.position.samples = progress.samples;
  for (const auto& loop : progress.loops) {
    if (loop->started && loop->loader != nullptr) request.position.epoch = loop->loader->epoch();
  }
  request.metrics = pending_metrics;
  request.values = std::move(captured.values);
  request.made_by = {{"holdfast", kVersion},
                     {"seed", options.seed},
                     {"environment", capture_environment(device.device, group.world_size())}};
  request.tensors = std::move(captured.tensors);
  request.tied = std::move(captured.tied);
  return keeper->save(request);
}

void Session::Impl::prune() {
  std::string lost_to;  // whoever took the run over
  if (is_main()) {
    const auto dropped = keeper->writer().prune({.keep_last = options.keep});
    if (dropped.code() == StatusCode::superseded) {
      lost_to = dropped.status().message();
    } else if (!dropped) {
      console.say("old versions stay: " + dropped.status().message());
    }
  }
  if (group.world_size() > 1) lost_to = group.broadcast(lost_to, 0, here);
  if (lost_to.empty()) return;
  superseded = true;
  stop = lost_to;
}

// ---------------------------------------------------------------------------------------------------------------------
// End

int Session::Impl::finish(Site site) {
  if (finished) return *finished;
  here = site;
  if (!opened) {  // nothing was run, so nothing is owed
    group.close(site);
    return *(finished = kDone);
  }
  storage::disarm_death_note();

  bool saved = true;
  if (!stop) {
    const bool changed = progress.step != last_save.step || save_requested ||
                         (last_values != nullptr && user_values(tracked.capture()) != last_values);
    if (group.all_reduce(static_cast<int>(changed), Reduce::max, site) != 0) saved = save("end", /*insist=*/true);
  } else {
    saved = progress.step == last_save.step;
  }
  const int code = superseded ? kSuperseded : !saved ? kNotSaved : stop ? kRunAgain : kDone;
  if (is_main()) {
    (void)keeper->metrics().flush();
    if (stop) {
      console.say(superseded ? *stop : end_line({*stop, progress.step, last_version, progress.step - last_save.step}));
    }
    if (!superseded) {
      const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
      keeper->close(stop ? *stop : "end", {{"exit_code", code},
                                           {"seconds", seconds},
                                           {"steps", progress.step - base_step},
                                           {"saves", saves},
                                           {"lost_steps", progress.step - last_save.step}});
    }
  }
  group.close(site);  // the others leave when rank 0 is done
  return *(finished = code);
}

// ---------------------------------------------------------------------------------------------------------------------
// Session

Session Session::start(int& argc, char** argv, SessionOptions options) {
  fill_standard_streams();
  report_uncaught_errors();
  OptionsRead read = options_or_exit(argc, argv, options);
  return Session(std::make_unique<Impl>(std::move(read), read_rank_environment()));
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::~Session() {
  if (!impl_ || !impl_->opened || impl_->finished) return;
  storage::disarm_death_note();
  if (impl_->keeper) (void)impl_->keeper->metrics().flush();
  if (impl_->progress.step != impl_->last_save.step) {
    impl_->console.say(
        fmt::format("the program ended without session.finish(): {} steps since the last version are not "
                    "saved",
                    format_count(impl_->progress.step - impl_->last_save.step)));
  }
}

bool Session::restore() {
  impl_->restore();
  return impl_->has_base;
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
  if (!self.opened) {
    throw Error(StatusCode::invalid, "session.log() comes before the run was opened; call session.restore() first");
  }
  std::uint64_t epoch = 0;
  for (const auto& loop : self.progress.loops) {
    if (loop->started && loop->loader != nullptr) epoch = loop->loader->epoch();
  }
  if (self.keeper) (void)self.keeper->metrics().log(self.progress.step + (self.in_step ? 1 : 0), epoch, values);
  self.last_logged.clear();
  for (const auto& [name, value] : values.items()) {
    if (value.is_number()) self.last_logged.emplace_back(name, value.get<double>());
  }
}

c10::Device Session::device() const { return impl_->device.device; }
std::uint64_t Session::seed() const { return impl_->options.seed; }
std::uint64_t Session::step() const { return impl_->progress.step; }
bool Session::stopping() const { return impl_->stop.has_value(); }
int Session::finish(Site site) { return impl_->finish(site); }

TrackedState& Session::tracked() {
  if (impl_->opened) {
    throw Error(StatusCode::invalid,
                "session.track() comes after the run was opened; track everything before the first "
                "step and before session.restore()");
  }
  return impl_->tracked;
}

Loop& Session::loader_loop(LoaderBase& loader, std::uint64_t epochs, bool nested, Site site) {
  LoopPosition position;
  position.loader = &loader;
  position.target = epochs;
  position.nested = nested;
  return impl_->add_loop(position, site);
}

Loop& Session::counted_loop(std::uint64_t count, Site site) {
  LoopPosition position;
  position.target = count;
  return impl_->add_loop(position, site);
}

void Session::print_text(const std::string& text) {
  if (impl_->is_main()) impl_->console.print(text);
}

void Session::average_gradients(const torch::nn::Module& net, Site site) {
  Impl& self = *impl_;
  const bool first = !std::exchange(self.gradients_were_compared, true);
  const std::string suspicion =
      holdfast::average_gradients(self.group, net.parameters(), self.step_info.weight(), first, site);
  if (!suspicion.empty()) self.console.say(suspicion);
}

Pipeline Session::make_pipeline(const std::string& name, std::shared_ptr<torch::nn::Module> net,
                                torch::optim::Optimizer& optimizer, std::vector<AnyStage> stages) {
  Impl& self = *impl_;
  TrackedState& state = tracked();
  if (!net) throw Error(StatusCode::invalid, "session.pipeline() was given a module that is null: make it before");
  const std::string prefix = name.empty() ? "" : name + ".";
  StageContext context{
      name,      self.group, self.device.device,     *net,
      optimizer, {},         self.options.precision, [&self](const std::string& line) { self.console.say(line); }};
  std::set<const void*> seen;
  for (const auto& parameter : net->named_parameters()) {
    if (!parameter.value().requires_grad() || !seen.insert(parameter.value().unsafeGetTensorImpl()).second) continue;
    context.parameters.push_back({parameter.key(), parameter.value()});
  }
  Pipeline& pipeline = *self.pipelines.emplace_back(std::make_unique<Pipeline>(std::move(context), std::move(stages)));
  if (!state.tracks(*net)) state.track(prefix + "net", std::shared_ptr<torch::nn::Module>(net));
  if (!state.tracks(optimizer)) state.track(prefix + "optimizer", optimizer);
  state.track(name.empty() ? "pipeline" : name, pipeline);
  self.modules.push_back(std::move(net));
  return pipeline;
}

std::string Session::describe(Site site) {
  std::string precision;
  for (const auto& pipeline : impl_->pipelines) {
    const Amp* amp = pipeline->find_stage<Amp>();
    precision += (precision.empty() ? "" : ", ") + (amp != nullptr ? to_string(amp->precision()) : "fp32");
  }
  const std::string mine = describe_rank(impl_->group, precision.empty() ? "fp32" : precision, kVersion);
  std::string text;
  for (const std::string& block : impl_->group.gather(mine, 0, site)) text += block;
  print_text(text);
  return text;
}

Group& Session::group() const { return impl_->group; }

void Session::shard(LoaderBase& loader) { loader.shard(impl_->group.rank(), impl_->group.world_size()); }

}  // namespace holdfast
