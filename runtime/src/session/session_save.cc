#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/held_state.h"
#include "checkpoint/rank_state.h"
#include "device/reproducibility.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"
#include "holdfast/storage/text/units.h"
#include "process/job_id.h"
#include "process/launcher_progress.h"
#include "ranks/group_control.h"
#include "ranks/status_json.h"
#include "session/session_impl.h"
#include "state/stored_name.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Failed attempts are not repeated at every step, because a full disk stays full for a while.
std::chrono::seconds pause_after(int failures) {
  return std::chrono::seconds(std::min(300, 10 << std::min(failures - 1, 5)));
}

constexpr int kAttemptsAtTheEnd = 3;

}  // namespace

Snapshot Session::Impl::capture() const {
  require_alive();
  Snapshot captured = tracked.capture();
  for (const auto& [name, state] : retired) {
    captured.tensors.insert(captured.tensors.end(), state.tensors.begin(), state.tensors.end());
    captured.may_differ.insert(state.may_differ.begin(), state.may_differ.end());
    captured.values.update(state.values);
  }
  return captured;
}

// Keeps own bytes of tensors that are tied to another object's.
void Session::Impl::retire(const std::string& name) {
  // The whole state, because an optimizer can be saved only together with its parameters.
  if (!before_untrack) before_untrack = tracked.capture();
  const Snapshot& all = *before_untrack;
  const auto is_other = [&](const std::string& one) { return !is_of(one, name); };
  Snapshot state;
  for (const storage::TensorSource& source : all.tensors) {
    if (!is_other(source.name)) state.tensors.push_back(source);
  }
  for (const auto& [alias, stored_as] : all.tied) {
    if (is_other(alias)) continue;
    const auto source =
        std::find_if(all.tensors.begin(), all.tensors.end(),
                     [&, &source_name = stored_as](const auto& one) { return one.name == source_name; });
    if (source == all.tensors.end()) continue;
    state.tensors.push_back(*source);
    state.tensors.back().name = alias;
  }
  for (const storage::TensorSource& source : state.tensors) {
    if (all.may_differ.contains(source.name)) state.may_differ.insert(source.name);
  }
  for (const auto& [key, value] : all.values.items()) {
    if (!is_other(key)) state.values[key] = value;
  }
  copy_bytes(state, is_main());
  retired.insert_or_assign(name, std::move(state));
}

// Reading dead objects would save whatever is in their place now.
void Session::Impl::require_alive() const {
  for (const auto& [name, owner] : owners) {
    if (!has_returned(owner)) continue;
    throw Error(
        StatusCode::invalid,
        fmt::format("'{}' is tracked and no longer exists, because the function that declared it has returned: "
                    "call session.untrack(\"{}\") before it returns, or declare it where it lives until the last "
                    "loop is over",
                    name, name));
  }
}

// All ranks call it together and get the same answer.
bool Session::Impl::save(const std::string& reason, bool insist) {
  const int attempts = insist ? kAttemptsAtTheEnd : 1;
  for (int attempt = 1; attempt <= attempts && !superseded; ++attempt) {
    const auto afterwards = attempt < attempts ? std::string("; trying again")
                            : insist           ? std::string()
                                               : fmt::format("; training continues, the next attempt is in {}",
                                                             storage::format_duration(pause_after(failures + 1)));
    if (try_save(reason, afterwards)) return true;
    if (!refused.empty()) return roll_back(insist);
  }
  return false;
}

// Restores the state of the newest version; everything else stays as it is, so the steps since then are skipped.
bool Session::Impl::roll_back(bool insist) {
  constexpr std::uint64_t kInARow = 3;
  const std::string more = std::exchange(refused, {});
  Rollbacks& rollbacks = progress.rollbacks;
  if (last_save.step > rollbacks.at) rollbacks.in_a_row = 0;
  if (rollbacks.in_a_row == kInARow) {
    stop = "NaN or infinite numbers appeared again";
    throw Error(
        StatusCode::invalid,
        fmt::format("step {} has {}, after {} rollbacks with no version in between: the batches are not the "
                    "cause; change what could be, such as the learning rate, and start again, which continues from "
                    "version {}",
                    storage::format_count(progress.step), more, kInARow, last_version));
  }
  // load_again() also moves back a loader that the program tracks, so its position is set again below.
  std::vector<std::pair<LoaderBase*, nlohmann::json>> positions;
  for (const auto& loop : progress.open) {
    if (loop->loader != nullptr) positions.emplace_back(loop->loader, loop->loader->state());
  }
  try {
    load_again();
  } catch (const RankFault&) {
    throw;
  } catch (const Error& error) {
    stop = "the state could not be rolled back";
    throw Error(error.code(), fmt::format("step {} has {}, and it could not be rolled back: {}; "
                                          "start again with --holdfast.from {}",
                                          storage::format_count(progress.step), more, error.what(), last_version));
  }
  for (const auto& [loader, position] : positions) {
    if (loader->state() != position) loader->set_state(position);
  }
  const std::uint64_t skipped = progress.step - last_save.step;
  rollbacks.at = progress.step;
  rollbacks.total += 1;
  rollbacks.in_a_row += 1;
  rollbacks.skipped += skipped;
  pending_metrics = nlohmann::json::object();
  save_requested = false;
  if (is_main()) {
    say(fmt::format(
        "step {} has {}: rolled back to that version; {} since then {} undone, and their batches do not come "
        "again (rollback {} of this run)",
        storage::format_count(progress.step), more,
        skipped == 1 ? "the step" : fmt::format("the {} steps", storage::format_count(skipped)),
        skipped == 1 ? "is" : "are", rollbacks.total));
    (void)manager->metrics().log(progress.step, progress.current_epoch(),
                                 {{"rollbacks", rollbacks.total}, {"skipped_steps", rollbacks.skipped}});
  }
  return save("rolled back to version " + last_version, insist);
}

bool Session::Impl::try_save(const std::string& reason, const std::string& afterwards) {
  if (group.world_size() > 1 && device.device.is_cuda()) {
    // Pending work may still fail, and after a fault's abort it "succeeds" with garbage, which must not be saved.
    c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).synchronizeDevice(device.device.index());
    group.check();
  }
  const Clock::time_point begin = Clock::now();
  return write_out(reason, capture(), begin, afterwards,
                   /*may_refuse=*/on_non_finite.act == OnNonFinite::Act::rollback);
}

// `begin`: when the program began to wait for the save.
bool Session::Impl::write_out(const std::string& reason, Snapshot captured, Clock::time_point begin,
                              const std::string& afterwards, bool may_refuse) {
  gather_rank_state(group, captured, here);  // also confirms that all ranks are healthy
  // Rank 0 writes; the others receive the outcome.
  std::tuple<storage::Status, std::string, std::string> outcome;  // with the version and its new non-finite numbers
  auto& [status, version, more] = outcome;
  if (is_main()) {
    const auto saved = write(reason, std::move(captured), may_refuse, more);
    status = saved.status();
    if (saved) {
      const auto took = Clock::now() - begin;
      version = saved->uid.short_text();
      console.say(saved_line({version, progress.step, reason, saved->bytes, took, took, saved->durability}));
      if (!more.empty()) console.say(fmt::format("version {} has {}", version, more));
    } else if (!may_refuse) {
      more.clear();
    }
    if (!saved && more.empty() && status.code() != StatusCode::superseded) {
      console.say(fmt::format("step {} is not saved: {}{}", storage::format_count(progress.step), status.message(),
                              afterwards));
    }
  }
  if (group.world_size() > 1) outcome = group.broadcast(outcome, 0, here);

  if (!status.ok() && !more.empty()) {
    refused = more;
    return false;
  }
  if (status.ok()) {
    if (!more.empty() && on_non_finite.act == OnNonFinite::Act::stop && !stop_reason) {
      stop_reason = "NaN or infinite numbers";
      stops_at_non_finite = true;
      version_before = last_version;
    }
    last_save = {progress.step, last_save.epochs, Clock::now(), progress.boundaries};
    last_version = version;
    held.reset();
    pending_metrics = nlohmann::json::object();
    save_requested = false;
    failures = 0;
    ++saves;
    if (is_main()) tell_launcher(progress.step);
    prune();
    return true;
  }
  if (status.code() == StatusCode::superseded) {
    superseded = true;
    stop = status.message();
    return false;
  }
  ++failures;
  next_attempt = Clock::now() + pause_after(failures);
  return false;
}

// `more`: receives the non-finite numbers that the version before did not have. `may_refuse`: if any, do not save.
storage::Result<storage::SavedVersion> Session::Impl::write(const std::string& reason, Snapshot captured,
                                                            bool may_refuse, std::string& more) {
  storage::SaveRequest request;
  request.reason = reason;
  request.position.step = progress.step;
  request.position.samples = progress.samples;
  request.position.epoch = progress.current_epoch();
  request.metrics = pending_metrics;
  request.values = std::move(captured.values);
  request.made_by = {{"holdfast", kVersion},
                     {"seed", options.seed},
                     {"environment", capture_environment(device.device, group.world_size())}};
  request.tensors = std::move(captured.tensors);
  request.tied = std::move(captured.tied);
  NonFiniteCounts counts;
  request.inspect = [&](const storage::Manifest& manifest) {
    counts = count_non_finite(manifest);
    more = more_non_finite(non_finite, counts, last_version.empty() ? "when the run began" : "version " + last_version);
    return more.empty() || !may_refuse ? storage::Status() : storage::Status(StatusCode::invalid, more);
  };
  auto saved = manager->save(std::move(request));
  if (saved) {
    newest = saved->uid;
    non_finite = std::move(counts);
  }
  return saved;
}

// Keeps the present state, for a save that may be needed when the tracked objects are gone.
void Session::Impl::hold(const std::string& reason) {
  held.reset();
  try {
    Snapshot captured = capture();
    copy_bytes(captured, is_main());
    held = std::move(captured);
    held_reason = reason;
  } catch (const std::bad_alloc&) {
    say("the state could not be kept in memory until the program's end, because too little is free: call "
        "session.save_now() after the last loop");
  }
}

void Session::Impl::save_held() {
  const Snapshot captured = *std::exchange(held, std::nullopt);
  for (int attempt = 1; attempt <= kAttemptsAtTheEnd && !superseded; ++attempt) {
    const char* const afterwards = attempt < kAttemptsAtTheEnd ? "; trying again" : "";
    if (write_out(held_reason, captured, Clock::now(), afterwards, /*may_refuse=*/false)) return;
  }
}

// The call has a place of its own among the program's loops, because a resume from its version reaches it again.
void Session::Impl::save_between_loops(Site site) {
  here = site;
  LoopPosition proto;
  proto.kind = LoopPosition::Kind::save_now;
  const std::shared_ptr<LoopPosition> position = progress.begin(std::move(proto));
  restore();
  (void)progress.resume(*position);
  const bool is_first = loops_begun++ == 0;
  if (position->has_saved && progress.boundaries == boundaries_at_load) {
    if (position->saved_here && !is_first) load_again();
    save_requested = false;
    return;  // the restored version is this one, or a later one
  }
  progress.mark(position);
  ++progress.boundaries;
  if (!save("save_now", /*insist=*/false) && !superseded) hold("save_now");
}

void Session::Impl::prune() {
  std::string lost_to;  // the session that took the run over
  if (is_main()) {
    const auto dropped = manager->writer().prune({.keep_last = options.keep});
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

int Session::Impl::finish(Site site) {
  if (finished) return *finished;
  here = site;
  if (!opened) {  // nothing ran, so nothing must be saved
    GroupControl(group).close(site);
    return *(finished = kDone);
  }
  storage::disarm_death_note();

  leave_all();
  const bool is_left = progress.ends_in_left_loop();
  if (is_left && held) {
    progress.reopen_left_loop();
    held->values[Progress::kName] = progress.state();
  }
  // If a rank could not keep its state in memory, no rank writes.
  const int holds = group.all_reduce(held.has_value() ? 1 : 0, Reduce::min, site);
  if (holds != 0 && !superseded) save_held();
  const bool saved = progress.boundaries == last_save.boundaries || progress.boundaries == boundaries_at_load;
  const int code = superseded ? kSuperseded : !saved ? kNotSaved : stop || is_left ? kRunAgain : kDone;
  if (is_main()) {
    (void)manager->metrics().flush();
    if (stop) {
      console.say(superseded ? *stop
                             : end_line({*stop, progress.step, last_version, progress.step - last_save.step,
                                         options.fresh && job_id().empty(), stops_at_non_finite, version_before}));
    }
    if (!superseded) {
      const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
      nlohmann::json details = {{"exit_code", code},
                                {"seconds", seconds},
                                {"steps", progress.step - base_step},
                                {"saves", saves},
                                {"lost_steps", progress.step - last_save.step}};
      if (progress.rollbacks.total > 0) details["rollbacks"] = progress.rollbacks.total;
      manager->close(stop ? *stop : is_left ? "the loop was left" : "end", std::move(details));
    }
  }
  GroupControl(group).close(site);  // the other ranks wait here for rank 0
  return *(finished = code);
}

}  // namespace holdfast
