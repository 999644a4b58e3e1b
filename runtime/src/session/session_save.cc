#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/rank_state.h"
#include "device/reproducibility.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/units.h"
#include "process/launcher_progress.h"
#include "ranks/status_json.h"
#include "session/session_impl.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Failed attempts are not repeated at every step, because a full disk stays full for a while.
std::chrono::seconds pause_after(int failures) {
  return std::chrono::seconds(std::min(300, 10 << std::min(failures - 1, 5)));
}

}  // namespace

// All ranks call it together and get the same answer.
bool Session::Impl::save(const std::string& reason, bool insist) {
  const int attempts = insist ? kAttemptsAtTheEnd : 1;
  for (int attempt = 1; attempt <= attempts && !superseded; ++attempt) {
    const auto pause = storage::format_duration(pause_after(saving.failures + 1));
    const auto afterwards = attempt < attempts ? std::string("; trying again")
                            : insist           ? std::string()
                                               : fmt::format("; training continues, the next attempt is in {}", pause);
    if (try_save(reason, afterwards)) return true;
    if (!saving.refused.empty()) return roll_back(insist);
  }
  return false;
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
      save_costs.add(took);
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
    saving.refused = more;
    return false;
  }
  if (status.ok()) {
    if (!more.empty() && on_non_finite.act == OnNonFinite::Act::stop && !agreement.program_stop) {
      agreement.program_stop = "NaN or infinite numbers";
      saving.stops_at_non_finite = true;
      saving.version_before = saving.version;
    }
    saving.last = {progress.step, saving.last.epochs, Clock::now(), progress.boundaries};
    saving.version = version;
    saving.held.reset();
    saving.metrics = nlohmann::json::object();
    saving.requested = false;
    saving.failures = 0;
    ++saving.count;
    if (is_main()) tell_launcher(progress.step);
    prune();
    return true;
  }
  if (status.code() == StatusCode::superseded) {
    superseded = true;
    stop = status.message();
    return false;
  }
  ++saving.failures;
  saving.next_attempt = Clock::now() + pause_after(saving.failures);
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
  request.metrics = saving.metrics;
  request.values = std::move(captured.values);
  request.made_by = {{"holdfast", kVersion},
                     {"seed", options.seed},
                     {"environment", capture_environment(device.device, group.world_size())}};
  request.tensors = std::move(captured.tensors);
  request.tied = std::move(captured.tied);
  NonFiniteCounts counts;
  request.inspect = [&](const storage::Manifest& manifest) {
    counts = count_non_finite(manifest);
    more = more_non_finite(saving.non_finite, counts,
                           saving.version.empty() ? "when the run began" : "version " + saving.version);
    return more.empty() || !may_refuse ? storage::Status() : storage::Status(StatusCode::invalid, more);
  };
  auto saved = manager->save(std::move(request));
  if (saved) {
    saving.newest = saved->uid;
    saving.non_finite = std::move(counts);
  }
  return saved;
}

void Session::Impl::prune() {
  std::string lost_to;  // the session that took the run over
  if (is_main()) {
    const auto dropped = manager->prune(options.keep);
    if (const auto by = manager->mirrors().superseded()) {
      lost_to = *by + "; this session stops and saves nothing more";
    } else if (dropped.code() == StatusCode::superseded) {
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

// Restores the state of the newest version; everything else stays as it is, so the steps since then are skipped.
bool Session::Impl::roll_back(bool insist) {
  constexpr std::uint64_t kInARow = 3;
  const std::string more = std::exchange(saving.refused, {});
  Rollbacks& rollbacks = progress.rollbacks;
  if (saving.last.step > rollbacks.at) rollbacks.in_a_row = 0;
  if (rollbacks.in_a_row == kInARow) {
    stop = "NaN or infinite numbers appeared again";
    throw Error(StatusCode::invalid,
                fmt::format("step {} has {}, after {} rollbacks with no version in between, so the batches are not the "
                            "cause: change something else, such as the learning rate, and start again to continue from "
                            "version {}",
                            storage::format_count(progress.step), more, kInARow, saving.version));
  }
  // load_again() also moves back a loader that the program tracks, so its position is set again below.
  std::vector<std::pair<detail::LoaderBase*, nlohmann::json>> positions;
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
                                          storage::format_count(progress.step), more, error.what(), saving.version));
  }
  for (const auto& [loader, position] : positions) {
    if (loader->state() != position) loader->set_state(position);
  }
  const std::uint64_t skipped = progress.step - saving.last.step;
  rollbacks.at = progress.step;
  rollbacks.total += 1;
  rollbacks.in_a_row += 1;
  rollbacks.skipped += skipped;
  saving.metrics = nlohmann::json::object();
  saving.requested = false;
  if (is_main()) {
    say(fmt::format(
        "step {} has {}: rolled back to that version; {} since then {} undone, and their batches are not repeated "
        "(rollback {} of this run)",
        storage::format_count(progress.step), more,
        skipped == 1 ? "the step" : fmt::format("the {} steps", storage::format_count(skipped)),
        skipped == 1 ? "is" : "are", rollbacks.total));
    (void)manager->metrics().log(progress.step, progress.current_epoch(),
                                 {{"rollbacks", rollbacks.total}, {"skipped_steps", rollbacks.skipped}});
  }
  return save("rolled back to version " + saving.version, insist);
}

}  // namespace holdfast
