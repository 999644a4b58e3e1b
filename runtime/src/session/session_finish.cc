#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "checkpoint/held_state.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"
#include "process/job_id.h"
#include "ranks/group_control.h"
#include "session/session_impl.h"

namespace holdfast {
namespace {

// A mirror that takes no byte for this long is given up at the end.
constexpr std::chrono::minutes kWithoutProgress{2};

}  // namespace

// Keeps the present state, for a save that may be needed when the tracked objects are gone.
void Session::Impl::hold(const std::string& reason) {
  saving.held.reset();
  try {
    Snapshot captured = capture();
    copy_bytes(captured, is_main());
    saving.held = std::move(captured);
    saving.held_reason = reason;
  } catch (const std::bad_alloc&) {
    say("the state could not be kept in memory until the program's end, because too little is free: call "
        "session.save_now() after the last loop");
  }
}

void Session::Impl::save_held() {
  const Snapshot captured = *std::exchange(saving.held, std::nullopt);
  for (int attempt = 1; attempt <= kAttemptsAtTheEnd && !superseded; ++attempt) {
    const char* const afterwards = attempt < kAttemptsAtTheEnd ? "; trying again" : "";
    if (write_out(saving.held_reason, captured, Clock::now(), afterwards, /*may_refuse=*/false)) return;
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
  if (position->has_saved && progress.boundaries == resumed.boundaries) {
    if (position->saved_here && !is_first) load_again();
    saving.requested = false;
    return;  // the restored version is this one, or a later one
  }
  progress.mark(position);
  ++progress.boundaries;
  if (!save("save_now", /*insist=*/false) && !superseded) hold("save_now");
}

// When mirrors are given up: shortly before the machine goes away, if that is known. A signal or a notice may also
// arrive while the session waits for them.
std::optional<Session::Impl::Clock::time_point> Session::Impl::end_of_copies() {
  constexpr std::chrono::seconds kToEnd{3};
  stop_if_preempted();
  if (agreement.signals.stop_signal() && !stop_arrived) stop_arrived = Clock::now();
  std::optional<Clock::time_point> end = machine_end;
  if (stop_arrived) {
    const auto kill = *stop_arrived + profile.notice.value_or(kUsualNotice);
    end = end ? std::min(*end, kill) : kill;
  }
  if (time.left) {
    const auto limit = begun + std::chrono::duration_cast<Clock::duration>(*time.left);
    end = end ? std::min(*end, limit) : limit;
  }
  return end ? std::optional(*end - kToEnd) : std::nullopt;
}

int Session::Impl::finish(Site site) {
  if (finished) return *finished;
  here = site;
  if (!resumed.opened) {  // nothing ran, so nothing must be saved
    detail::GroupControl(group).close(site);
    return *(finished = kDone);
  }
  storage::disarm_death_note();

  leave_all();
  const bool is_left = progress.ends_in_left_loop();
  if (is_left && saving.held) {
    progress.reopen_left_loop();
    saving.held->values[Progress::kName] = progress.state();
  }
  // If a rank could not keep its state in memory, no rank writes.
  const int holds = group.all_reduce(saving.held.has_value() ? 1 : 0, Reduce::min, site);
  if (holds != 0 && !superseded) save_held();
  const bool saved = progress.boundaries == saving.last.boundaries || progress.boundaries == resumed.boundaries;
  const int code = superseded ? kSuperseded : !saved ? kNotSaved : stop || is_left ? profile.stopped_exit_code : kDone;
  if (is_main()) {
    (void)manager->metrics().flush();
    if (stop) {
      console.say(superseded ? *stop
                             : end_line({*stop, progress.step, saving.version, progress.step - saving.last.step,
                                         options.fresh && job_id().empty(), saving.stops_at_non_finite,
                                         saving.version_before}));
    }
    if ((stop || is_left) && code == kDone) {
      console.say("exit code 0, because " + profile.title + " keeps no output of a run that fails");
    }
    if (!superseded) {
      const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
      nlohmann::json details = {{"exit_code", code},
                                {"seconds", seconds},
                                {"steps", progress.step - resumed.step},
                                {"saves", saving.count},
                                {"lost_steps", progress.step - saving.last.step}};
      if (progress.rollbacks.total > 0) details["rollbacks"] = progress.rollbacks.total;
      const auto say = [this](const std::string& line) { console.say(line); };
      manager->mirrors().finish_base([this] { return end_of_copies(); }, kWithoutProgress, say);
      manager->close(stop ? *stop : is_left ? "the loop was left" : "end", std::move(details));
      manager->mirrors().finish([this] { return end_of_copies(); }, kWithoutProgress, say);
    }
  }
  detail::GroupControl(group).close(site);  // the other ranks wait here for rank 0
  return *(finished = code);
}

}  // namespace holdfast
