#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "checkpoint/rank_feed.h"
#include "checkpoint/replication_check.h"
#include "data/sample_order.h"
#include "data/session_seed.h"
#include "device/reproducibility.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/storage/text/plural.h"
#include "holdfast/storage/text/units.h"
#include "ranks/group_control.h"
#include "ranks/status_json.h"
#include "session/session_impl.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Whether the user set it, not holdfast launch, which divides a host's cores among its ranks.
bool user_set_omp_num_threads() {
  return std::getenv("OMP_NUM_THREADS") != nullptr && std::getenv(detail::kThreadsVariable) == nullptr;
}

}  // namespace

void Session::Impl::restore() {
  if (resumed.opened) return;
  if (is_main()) {
    open_as_main();
  } else {
    open_as_other();
  }
  resumed.opened = true;
  if (!resumed.has_base) begin_new_run();
  saving.last = {progress.step, 0, Clock::now(), progress.boundaries};
  resumed.step = progress.step;
  resumed.boundaries = progress.boundaries;
  for (const auto& pipeline : pipelines) not_updated.emplace_back(pipeline.get(), pipeline->updates());
  require_finite_base();
  note_generators_alike();
  tracked.watch_gradients();
  if (!is_main()) return;
  log_start();
  manager->remove_orphans();
  manager->bring_base_home();
  for (const std::string& warning : manager->writer().history().warnings()) console.say(warning);
}

void Session::Impl::open_as_main() {
  const auto on_all = [this](const auto& act) {
    try {
      act();
    } catch (const RankFault&) {
      throw;
    } catch (const Error& error) {
      if (!detail::GroupControl(group).fault()) {
        (void)group.broadcast(nlohmann::json{{"failed", storage::Status(error.code(), error.what())}}, 0, here);
      }
      throw;
    }
    resumed.has_base = manager->writer().base().has_value();
    (void)group.broadcast(nlohmann::json{{"opened", resumed.has_base}}, 0, here);
  };
  if (!resumed.opened) {
    manager = std::make_unique<CheckpointManager>(options, console);
    return on_all(
        [&] { manager->open(options, profile.name, [this](const auto& version) { return load_on_all(version); }); });
  }
  on_all([&] { detail::throw_if(load_on_all(manager->read(*saving.newest))); });
}

void Session::Impl::open_as_other() {
  for (;;) {
    const auto said = group.broadcast(nlohmann::json(), 0, here);
    if (said.contains("failed")) detail::throw_if(said.at("failed").get<storage::Status>());
    if (said.contains("opened")) {
      resumed.has_base = said.at("opened");
      return;
    }
    const auto manifest = detail::value_of(storage::decode_manifest(said.at("load").get<std::string>()));
    RankFeed feed(group, manifest);
    (void)load(manifest, &feed, nullptr);
  }
}

// The other ranks follow rank 0 through the versions that it tries: one message for each, and one for the outcome.
storage::Status Session::Impl::load_on_all(const storage::VersionReader& version) {
  if (group.world_size() == 1) return load(version.manifest(), nullptr, &version);
  (void)group.broadcast(nlohmann::json{{"load", encode(version.manifest())}}, 0, here);
  MainFeed feed(group, version);
  return load(version.manifest(), &feed, &version);
}

// Loads from `feed` with several ranks, else directly from `version`. All ranks return the same.
storage::Status Session::Impl::load(const storage::Manifest& manifest, TensorFeed* feed,
                                    const storage::VersionReader* version) {
  LoosenOptions loosen{options.allow_missing, options.allow_unexpected, options.allow_mismatch};
  if (*options.load == LoadMode::subset)
    loosen = {.allow_missing = {"*"}, .allow_unexpected = {"*"}, .allow_mismatch = {"*"}};
  // The state of a later phase waits until it is tracked; an earlier phase's objects may no longer be tracked.
  for (const std::string& name : Progress::later_names(manifest)) loosen.waiting.push_back(name);
  for (const auto& [name, state] : lifetimes.retired()) loosen.waiting.push_back(name);
  storage::Status outcome;
  try {
    resumed.state = feed != nullptr ? tracked.restore(manifest, loosen, *feed) : tracked.restore(*version, loosen);
    const nlohmann::json saved = manifest.made_by.value("environment", nlohmann::json::object());
    resumed.ranks_changed = saved_world_size(manifest) != group.world_size();
    // Another number of ranks divides a host's cores differently, and its resume is not bit-exact anyway.
    restore_environment(saved, options.threads > 0 || resumed.ranks_changed || user_set_omp_num_threads());
    if (const int before = saved.value("threads", 0);
        options.threads == 0 && user_set_omp_num_threads() && before != 0 && before != at::get_num_threads()) {
      resumed.state.notes.push_back(fmt::format(
          "{} threads, because OMP_NUM_THREADS is set; the version was saved with {} (--holdfast.threads {})",
          at::get_num_threads(), before, before));
    }
    if (options.deterministic) make_deterministic();  // the user's option wins over the version's
    resumed.not_exact = differences(saved, capture_environment(device.device, group.world_size()));
    // The version restored the orders of samples and the generators, so the seed is the one that they were made with.
    const auto seed = manifest.made_by.find("seed");
    options.seed =
        seed != manifest.made_by.end() && seed->is_number_unsigned() ? seed->get<std::uint64_t>() : asked_seed;
    set_session_seed(options.seed);
    if (options.seed != asked_seed) {
      resumed.state.notes.push_back(
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
  resumed.waiting.clear();
  for (const std::string& name : Progress::later_names(manifest)) {
    if (!tracked.tracks(name)) resumed.waiting.insert(name);
  }
  if (!outcome.ok()) return outcome;
  saving.version = manifest.uid.short_text();
  if (!is_main()) return outcome;
  saving.newest = manifest.uid;
  saving.non_finite = manifest.non_finite ? count_non_finite(manifest) : count_non_finite(tracked.capture());
  // The steps that its session did after this version are lost and are repeated.
  resumed.steps_lost.clear();
  if (const auto lost = manager->steps_after(manifest.uid, manifest.position.step); lost > 0) {
    resumed.steps_lost =
        fmt::format("repeating about {} that {} not saved", storage::plural(lost, "step"), lost == 1 ? "was" : "were");
  }
  return {};
}

// A run that stopped because its numbers became NaN or infinite does not continue with them.
void Session::Impl::require_finite_base() {
  if (on_non_finite.act == OnNonFinite::Act::note || !resumed.has_base) return;
  std::string sentence;
  if (is_main() && !manager->writer().choice().rewind) {  // else the user chose the version
    try {
      const auto base = manager->read(*saving.newest);
      if (const auto& parent = base.manifest().parent) {
        const auto before = manager->read(*parent);
        if (before.manifest().non_finite) {
          const std::string more = more_non_finite(count_non_finite(before.manifest()), saving.non_finite,
                                                   "version " + parent->short_text());
          if (!more.empty()) {
            sentence = fmt::format(
                "version {0} has {1}: continue from version {2} with --holdfast.from {2}, or from this one with "
                "--holdfast.on-nonfinite note",
                saving.newest->short_text(), more, parent->short_text());
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
    resumed.state.notes.push_back(fmt::format(
        "'{}' is the same on all ranks, so they draw the same numbers; if they should not, seed it with the rank",
        name));
  }
}

void Session::Impl::begin_new_run() {
  tracked.begin();
  const Snapshot captured = tracked.capture();
  if (is_main()) saving.non_finite = count_non_finite(captured);
  if (group.world_size() == 1) return;
  require_alike(group, captured, here, "before the first step",
                "make it after Session::start, which seeds all ranks alike, and do not draw its values from a "
                "generator of your own that differs between ranks");
  seed_all(seed_of_rank(generator_seed, 0, group.rank()));  // from here on ranks draw different numbers: dropout
}

// Tracked objects become what the newest version holds, undoing later changes. Loops stay where they are.
void Session::Impl::load_again() {
  progress.loads_again = true;
  is_main() ? open_as_main() : open_as_other();
  progress.loads_again = false;
}

void Session::Impl::log_start() {
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
  if (profile.name != "local") facts.platform = profile.title;
  facts.ranks = group.world_size();
  facts.sample_exact = resumed.ranks_changed && progress.is_over_loader();  // unknown for the program's own batches
  facts.seed = options.seed;
  facts.place = manager->place();
  for (const std::string& mirror : options.mirror) facts.place += ", copies in " + mirror;
  facts.every = to_string(every);
  if (time.left) {
    facts.time = fmt::format("{} left ({})", storage::format_duration(*time.left), time.reason);
  }
  if (notices) facts.time += (facts.time.empty() ? "" : ", ") + ("preemption notices of " + notices->title());
  facts.differences = resumed.not_exact;
  const storage::RunWriter& writer = manager->writer();
  if (writer.base()) {
    facts.resumed =
        fmt::format("version {}, step {}", writer.base()->short_text(), storage::format_count(progress.step));
    if (const std::string place = manager->base_elsewhere(); !place.empty()) facts.resumed += ", from " + place;
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
  if (!time.note.empty()) console.say(time.note);
  if (options.notices == "auto" && !notices) {
    console.say(
        "--holdfast.notices auto has no effect, because this machine's firmware names no cloud that is known: "
        "name it, such as --holdfast.notices ec2");
  }
  if (const Loss loss = loss_in(options.dir, profile, platform, around.mounts);
      options.mirror.empty() && !loss.empty()) {
    console.say(loss.what + ": " + loss.remedy);
  }
  for (const std::string& note : resumed.state.notes) console.say(note);
  if (!resumed.steps_lost.empty()) console.say(resumed.steps_lost);
  if (options.precision && !has_amp) {
    console.say(fmt::format("--holdfast.precision {} has no effect: no pipeline in this program uses Amp()",
                            options.precision->text()));
  }
  if (!tracked.may_hold_parameters()) {
    console.say(
        "no parameters are saved because neither a module nor an optimizer is tracked: call session.track() with them "
        "before the first step");
  }
}

}  // namespace holdfast
