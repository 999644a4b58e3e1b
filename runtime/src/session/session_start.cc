#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <thread>

#include "checkpoint/shared_version.h"
#include "data/dataset_change.h"
#include "data/session_seed.h"
#include "device/environment.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/storage/formats/digest.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/text/units.h"
#include "ranks/meeting.h"
#include "ranks/status_json.h"
#include "session/earlier_sessions.h"
#include "session/session_impl.h"
#include "state/stored_name.h"

namespace holdfast {

using storage::StatusCode;

namespace {

std::chrono::milliseconds milliseconds(const std::string& duration) {
  return std::chrono::ceil<std::chrono::milliseconds>(storage::parse_duration(duration).value());
}

// Whether the user set it, not holdfast launch, which divides a host's cores among its ranks.
bool user_set_omp_num_threads() {
  return std::getenv("OMP_NUM_THREADS") != nullptr && std::getenv(detail::kThreadsVariable) == nullptr;
}

std::string stopped_before_all_met(int rank) {
  return fmt::format(
      "rank {} was told to stop before all ranks had met: nothing was begun; run the same command again "
      "(exit code {})",
      rank, static_cast<int>(kRunAgain));
}

}  // namespace

std::atomic<bool> Session::Impl::Sole::alive{false};
std::atomic<Session::Impl*> Session::Impl::current{nullptr};

Session::Impl::Sole::Sole() {
  if (!alive.exchange(true)) return;
  throw Error(StatusCode::invalid,
              "Session::start was called while another session of this process lives: one at a time, so let the first "
              "one's scope end before");
}

Session::Impl::Impl(OptionsRead given, RankEnvironment ranks)
    : options(std::move(given.values)),
      on_non_finite(parse_on_non_finite(options.on_nonfinite)),
      every([&] {
        SaveEvery when = parse_save_every(options.every);
        // A rollback must not skip more steps than this.
        if (const auto most = on_non_finite.steps; most > 0 && (when.steps == 0 || when.steps > most))
          when.steps = most;
        return when;
      }()),
      signals(/*answers=*/ranks.rank == 0),
      console(stderr, ranks.rank == 0 ? Console::Style::automatic : Console::Style::silent),
      device([&] {
        if (options.deterministic) make_deterministic();
        if (!ranks.local_known) {
          const NothingToSave scope(stopped_before_all_met(ranks.rank), kRunAgain);
          find_place_on_host(ranks, {milliseconds(options.join_within), milliseconds(options.say_waiting),
                                     [this](const std::string& line) { console.say_of_rank(line); }});
        }
        return choose_device(options.device, ranks.local_rank, ranks.local_world_size);
      }()),
      group([&] {
        // The other ranks may need minutes to come, and a stop request must not wait that long.
        const NothingToSave scope(stopped_before_all_met(ranks.rank), kRunAgain);
        return Group(ranks, device.device,
                     {.join_within = milliseconds(options.join_within),
                      .say_waiting_after = milliseconds(options.say_waiting),
                      .silence = milliseconds(options.silence),
                      .say = [this](const std::string& line) { console.say_of_rank(line); }});
      }()),
      tracked(RankPlace{ranks.rank, ranks.world_size, device.device}) {
  // The path counts from the working directory at start(), which may differ when the run is opened.
  boost::system::error_code gone;
  if (const storage::Path dir(options.dir); dir.is_relative()) {
    options.dir = (boost::filesystem::current_path(gone) / dir).string();
  }
  require_same_options(given.in_force);
  if (ranks.world_size > 1) {
    if (auto shared = gpu_of_two(group.all_gather(device.gpu))) throw Error(StatusCode::invalid, *shared);
  }
  if (ranks.world_size > 1) {
    before_death.emplace([this](const std::string& why) {
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
  seed_generators();
  set_session_seed(options.seed);
  allow_dataset_change(options.allow_dataset_change);
  tracked.track(Progress::kName, progress);
  [[maybe_unused]] static const int registered = std::atexit(report_exit);
  current = this;
}

// Alike on all ranks, so that parameters are. A later session of the process continues with the generators as they are:
// the same numbers again would make its phase a copy of the one before.
void Session::Impl::seed_generators() {
  generator_seed = options.seed;
  const bool goes_on = std::exchange(earlier_sessions().seed, options.seed) == options.seed;
  if (goes_on && group.world_size() == 1) return;
  if (goes_on) {  // the ranks' generators differ by then
    generator_seed =
        group.broadcast(static_cast<std::uint64_t>(at::randint(INT64_MAX, {1}, at::kLong).item<std::int64_t>()));
  }
  seed_all(generator_seed);
}

// exit() does not run the destructors of objects on the stack.
void Session::Impl::report_exit() {
  const Impl* const session = current.exchange(nullptr);
  if (session == nullptr || !session->opened || session->finished) return;
  const std::uint64_t lost = session->progress.step - session->last_save.step;
  std::fprintf(stderr, "holdfast: exit() was called before session.finish(): %s; the next start continues from %s\n",
               lost == 0
                   ? "a step under way is not saved"
                   : fmt::format("{} steps and the one under way are not saved", storage::format_count(lost)).c_str(),
               session->last_version.empty() ? "the beginning" : ("version " + session->last_version).c_str());
}

Session::Impl::~Impl() {
  current = nullptr;
  set_session_seed({});
  allow_dataset_change(false);
}

void Session::Impl::require_same_options(const std::vector<OptionInForce>& in_force) {
  if (group.world_size() == 1) return;
  std::vector<std::array<std::string, 3>> mine;  // name, value, origin
  for (const OptionInForce& option : in_force) {
    // A configuration file's content must be alike on all hosts, not its path.
    if (option.name != "config") mine.push_back({option.name, option.value, option.origin});
  }
  std::vector<std::vector<std::array<std::string, 3>>> all;
  for (const auto& one : group.compare("Session::start", "", mine)) all.push_back(one);
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
  last_save = {progress.step, 0, Clock::now(), progress.boundaries};
  base_step = progress.step;
  boundaries_at_load = progress.boundaries;
  for (const auto& pipeline : pipelines) not_updated.emplace_back(pipeline.get(), pipeline->updates());
  require_finite_base();
  note_generators_alike();
  tracked.watch_gradients();
  if (!is_main()) return;
  say_start();
  keeper->remove_orphans();
  for (const std::string& warning : keeper->writer().history().warnings()) console.say(warning);
}

// The other ranks follow rank 0 through the versions that it tries: one message for each, and one for the outcome.
storage::Status Session::Impl::load_on_all(const storage::VersionReader& version) {
  if (group.world_size() == 1) return load(version.manifest(), nullptr, &version);
  (void)group.broadcast(nlohmann::json{{"load", encode(version.manifest())}}, 0, here);
  MainFeed feed(group, version);
  return load(version.manifest(), &feed, &version);
}

void Session::Impl::open_as_main() {
  const auto on_all = [this](const auto& act) {
    try {
      act();
    } catch (const RankFault&) {
      throw;
    } catch (const Error& error) {
      if (!group.fault()) {
        (void)group.broadcast(nlohmann::json{{"failed", storage::Status(error.code(), error.what())}}, 0, here);
      }
      throw;
    }
    has_base = keeper->writer().base().has_value();
    (void)group.broadcast(nlohmann::json{{"opened", has_base}}, 0, here);
  };
  if (!opened) {
    keeper = std::make_unique<RunKeeper>(options, console);
    return on_all([&] { keeper->open(options, [this](const auto& version) { return load_on_all(version); }); });
  }
  on_all([&] { throw_if(load_on_all(keeper->read(*newest))); });
}

void Session::Impl::open_as_other() {
  for (;;) {
    const auto said = group.broadcast(nlohmann::json(), 0, here);
    if (said.contains("failed")) throw_if(said.at("failed").get<storage::Status>());
    if (said.contains("opened")) {
      has_base = said.at("opened");
      return;
    }
    const auto manifest = value_of(storage::decode_manifest(said.at("load").get<std::string>()));
    RankFeed feed(group, manifest);
    (void)load(manifest, &feed, nullptr);
  }
}

// Loads from `feed` with several ranks, else directly from `version`. All ranks return the same.
storage::Status Session::Impl::load(const storage::Manifest& manifest, TensorFeed* feed,
                                    const storage::VersionReader* version) {
  LoosenOptions loosen{options.allow_missing, options.allow_unexpected, options.allow_mismatch};
  if (options.load == "subset") loosen = {.allow_missing = {"*"}, .allow_unexpected = {"*"}, .allow_mismatch = {"*"}};
  // The state of a later phase waits until it is tracked; an earlier phase's objects may no longer be tracked.
  for (const std::string& name : Progress::later_names(manifest)) loosen.waiting.push_back(name);
  for (const auto& [name, state] : retired) loosen.waiting.push_back(name);
  storage::Status outcome;
  try {
    restored = feed != nullptr ? tracked.restore(manifest, loosen, *feed) : tracked.restore(*version, loosen);
    const nlohmann::json saved = manifest.made_by.value("environment", nlohmann::json::object());
    ranks_changed = saved_world_size(manifest) != group.world_size();
    // Another number of ranks divides a host's cores differently, and its resume is not bit-exact anyway.
    restore_environment(saved, options.threads > 0 || ranks_changed || user_set_omp_num_threads());
    if (const int before = saved.value("threads", 0);
        options.threads == 0 && user_set_omp_num_threads() && before != 0 && before != at::get_num_threads()) {
      restored.notes.push_back(fmt::format(
          "{} threads, because OMP_NUM_THREADS is set; the version was saved with {} (--holdfast.threads {})",
          at::get_num_threads(), before, before));
    }
    if (options.deterministic) make_deterministic();  // the user's option wins over the version's
    not_exact = differences(saved, capture_environment(device.device, group.world_size()));
    // The version restored the orders of samples and the generators, so the seed is the one that they were made with.
    const auto seed = manifest.made_by.find("seed");
    options.seed =
        seed != manifest.made_by.end() && seed->is_number_unsigned() ? seed->get<std::uint64_t>() : asked_seed;
    set_session_seed(options.seed);
    if (options.seed != asked_seed) {
      restored.notes.push_back(
          fmt::format("seed {} is not used: the run continues with its own, {}; a new seed needs a new "
                      "run (--holdfast.run) or --holdfast.fresh",
                      asked_seed, options.seed));
    }
  } catch (const RankFault&) {
    throw;
  } catch (const Error& error) {
    outcome = {error.code(), error.what()};
  }
  if (group.world_size() > 1) {
    for (const auto& one : group.all_gather(outcome, here)) {
      if (outcome.ok()) outcome = one;
    }
  }
  waiting.clear();
  for (const std::string& name : Progress::later_names(manifest)) {
    if (!tracked.tracks(name)) waiting.insert(name);
  }
  if (!outcome.ok()) return outcome;
  last_version = manifest.uid.short_text();
  if (!is_main()) return outcome;
  newest = manifest.uid;
  non_finite = manifest.non_finite ? count_non_finite(manifest) : count_non_finite(tracked.capture());
  // The steps that its session did after this version are lost and done again.
  base_steps_lost.clear();
  if (const auto lost = keeper->steps_after(manifest.uid, manifest.position.step); lost > 0) {
    base_steps_lost = fmt::format("about {} steps that were not saved are done again", storage::format_count(lost));
  }
  return {};
}

// A run that stopped because its numbers became NaN or infinite does not continue with them.
void Session::Impl::require_finite_base() {
  if (on_non_finite.act == OnNonFinite::Act::note || !has_base) return;
  std::string sentence;
  if (is_main() && !keeper->writer().choice().rewind) {  // else the user chose the version
    try {
      const auto base = keeper->read(*newest);
      if (const auto& parent = base.manifest().parent) {
        const auto before = keeper->read(*parent);
        if (before.manifest().non_finite) {
          const std::string more =
              more_non_finite(count_non_finite(before.manifest()), non_finite, "version " + parent->short_text());
          if (!more.empty()) {
            sentence = fmt::format(
                "version {0} has {1}: continue from version {2} with --holdfast.from {2}, or from this one with "
                "--holdfast.on-nonfinite note",
                newest->short_text(), more, parent->short_text());
          }
        }
      }
    } catch (const Error&) {  // the version before is gone, so a comparison is impossible
    }
  }
  if (group.world_size() > 1) sentence = group.broadcast(sentence, 0, here);
  if (!sentence.empty()) throw Error(StatusCode::misfit, sentence);
}

// Each rank has its own generators and was perhaps meant to draw its own numbers.
void Session::Impl::note_generators_alike() {
  if (group.world_size() == 1) return;
  const auto all = group.all_gather(tracked.generators(), here);
  for (const auto& [name, state] : all.front()) {
    const auto is_alike = [&, &name = name, &state = state](const auto& one) {
      const auto found = one.find(name);
      return found != one.end() && found->second == state;
    };
    if (!std::all_of(all.begin(), all.end(), is_alike)) continue;
    restored.notes.push_back(fmt::format(
        "'{}' is the same on all ranks: they draw the same numbers; where they should not, seed it with the rank",
        name));
  }
}

// Tracked objects become what the newest version holds, undoing later changes. Loops stay where they are.
void Session::Impl::load_again() {
  progress.loads_again = true;
  is_main() ? open_as_main() : open_as_other();
  progress.loads_again = false;
}

void Session::Impl::begin_afresh() {
  tracked.begin();
  const Snapshot captured = tracked.capture();
  if (is_main()) non_finite = count_non_finite(captured);
  if (group.world_size() == 1) return;
  require_alike(group, captured, here, "before the first step",
                "make it after Session::start, which seeds all ranks alike, and draw from no generator of your own "
                "that differs between ranks");
  seed_all(seed_of_rank(generator_seed, 0, group.rank()));  // from here on ranks draw different numbers: dropout
}

void Session::Impl::say_start() {
  StartFacts facts;
  facts.run = options.run;
  facts.device = device.device.is_cpu() ? fmt::format("cpu, {} threads", at::get_num_threads()) : device.device.str();
  bool has_amp = false;
  for (const auto& pipeline : pipelines) {
    const Amp* const amp = pipeline->find_stage<Amp>();
    if (amp == nullptr) continue;
    has_amp = true;
    const std::string precision = ", " + to_string(amp->precision());
    if (amp->precision() != Precision::fp32 && !facts.device.ends_with(precision)) facts.device += precision;
  }
  facts.ranks = group.world_size();
  facts.sample_exact = ranks_changed && progress.is_over_loader();  // unknown for the program's own batches
  facts.seed = options.seed;
  facts.place = keeper->place();
  facts.every = to_string(every);
  facts.differences = not_exact;
  const storage::RunWriter& writer = keeper->writer();
  if (writer.base()) {
    facts.resumed =
        fmt::format("version {}, step {}", writer.base()->short_text(), storage::format_count(progress.step));
  }
  facts.note = device.note;
  console.say(start_line(facts));
  const storage::Choice& choice = writer.choice();
  if (choice.starting_point_is_used || (!writer.base() && writer.history().opens().size() > 1)) {
    console.say(choice.reason);
  }
  for (const storage::PassedOver& passed : choice.passed_over) {
    console.say(fmt::format("version {} was passed over: {}", passed.uid.short_text(), passed.reason));
  }
  for (const std::string& note : restored.notes) console.say(note);
  if (!base_steps_lost.empty()) console.say(base_steps_lost);
  if (!options.precision.empty() && !has_amp) {
    console.say(fmt::format("option precision, {}, changes nothing: this program has no pipeline with Amp()",
                            options.precision));
  }
  if (!tracked.may_hold_parameters()) {
    console.say(
        "no parameters are saved because neither a module nor an optimizer is tracked: call session.track() with them "
        "before the first step");
  }
}

}  // namespace holdfast
