#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>

#include "holdfast/runtime/environment.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/units.h"
#include "holdfast/storage/death_note.h"
#include "launcher_progress.h"
#include "session_impl.h"
#include "shared_version.h"
#include "status_json.h"

namespace holdfast {

using storage::StatusCode;

namespace {

// Attempts that failed are not repeated at every step: a disk that is full stays so for a while.
std::chrono::seconds pause_after(int failures) {
  return std::chrono::seconds(std::min(300, 10 << std::min(failures - 1, 5)));
}

constexpr int kAttemptsAtTheEnd = 3;

}  // namespace

nlohmann::json user_values(const Captured& captured) {
  nlohmann::json values = captured.values;
  values.erase(Progress::kName);
  for (const std::string& name : captured.flags) values.erase(name);  // eval() for a last evaluation is no progress
  return values;
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
  std::pair<storage::Status, std::string> outcome;  // and the version's name
  auto& [status, version] = outcome;
  if (is_main()) {
    const auto saved = write(reason, std::move(captured));
    status = saved.status();
    if (saved) {
      const auto took = Clock::now() - begin;
      version = saved->uid.short_text();
      console.say(saved_line({version, progress.step, reason, saved->bytes, took, took, saved->durability}));
    } else if (status.code() != StatusCode::superseded) {
      console.say(fmt::format("step {} is not saved: {}{}", format_count(progress.step), status.message(), afterwards));
    }
  }
  if (group.world_size() > 1) outcome = group.broadcast(outcome, 0, here);

  if (status.ok()) {
    last_save = {progress.step, last_save.epochs, Clock::now()};
    last_version = version;
    last_values = values;
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

}  // namespace holdfast
