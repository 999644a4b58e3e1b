#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "checkpoint/replication_check.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"
#include "session/session_impl.h"

namespace holdfast {

// Whether parameters may just have changed for the first time, so that ranks that do not average gradients now differ:
// at a pipeline's first update, and at a plain loop's first optimizer step. The session does not see the latter, so a
// loop that averages nothing is checked a few more times, because it may use several batches per optimizer step.
bool Session::Impl::may_have_diverged() {
  if (group.world_size() == 1) return false;
  const std::uint64_t steps = progress.step - resumed.step;
  const bool updated =
      std::erase_if(not_updated, [](const auto& one) { return one.first->updates() > one.second; }) > 0;
  const bool plain = pipelines.empty() && !gradients_were_compared && steps <= 64;
  return steps == 1 || updated || (plain && std::has_single_bit(steps));
}

// Why rank 0's clock asks all ranks to save here; empty: it does not, or there is one rank, which decides by itself.
std::string Session::Impl::clock_asks_for_save(Boundary here) const {
  if (group.world_size() == 1 || !is_main()) return {};
  SaveEvery time;
  time.time = every.time;
  here.last = false;
  return decide(time, here, saving.last, {}).reason;
}

// Rank 0's time counts for all ranks.
void Session::Impl::stop_if_time_is_over(Clock::time_point now) {
  if (boundary_done) step_costs.add(now - *boundary_done);
  boundary_done = now;
  if (!is_main() || !time.left || agreement.clock_stop) return;
  const auto end = begun + std::chrono::duration_cast<Clock::duration>(*time.left);
  if (must_stop(now, end, *options.time_margin, step_costs, save_costs)) agreement.clock_stop = time.reason;
}

// The cloud's notice to one host counts for all ranks.
void Session::Impl::stop_if_preempted() {
  if (!notices) return;
  notices->report([this](const std::string& line) { console.say_of_rank(line); });
  if (machine_end) return;
  const Notice notice = notices->notice();
  if (!notice) return;
  agreement.clock_stop = notice->reason;
  machine_end = notices->arrived() + profile_of(notices->cloud(), around).notice.value_or(kUsualNotice);
  if (!notice->machine_end) return;
  const std::chrono::system_clock::time_point end{std::chrono::seconds(*notice->machine_end)};
  machine_end = Clock::now() + std::max(end - std::chrono::system_clock::now(), std::chrono::system_clock::duration(0));
}

// `over`: no iteration of this loop follows.
void Session::Impl::boundary(const std::shared_ptr<LoopPosition>& position, bool over) {
  const LoopPosition& loop = *position;
  if (!resumed.waiting.empty()) {
    throw Error(
        storage::StatusCode::misfit,
        fmt::format(
            "the checkpoint was made in a later phase of the program, which tracked '{}', but a loop before that "
            "phase still has steps left: do not extend an earlier loop after a later phase has begun, and keep "
            "tracking '{}'",
            *resumed.waiting.begin(), *resumed.waiting.begin()));
  }
  const Clock::time_point now = Clock::now();
  if (agreement.signals.stop_signal() && !stop_arrived) stop_arrived = boundary_done.value_or(begun);
  stop_if_time_is_over(now);
  stop_if_preempted();
  progress.mark(position);
  ++progress.boundaries;
  storage::death_note_steps(progress.step - resumed.step);
  if (progress.step - resumed.step == storage::kPoisonSteps) storage::disarm_death_note();
  console.progress(progress.step, now, [&] { return progress_facts(loop); });
  if (manager) {
    manager->note_step(progress.step);
    manager->mirrors().report([this](const std::string& line) { console.say(line); });
  }

  Boundary here;
  here.step = progress.step;
  here.boundaries = progress.boundaries;
  here.now = now;
  const bool epoch_is_over = loop.loader != nullptr && loop.loader->epoch_done();
  if (loop.loader != nullptr) here.epochs = loop.loader->epoch() + (epoch_is_over ? 1 : 0);
  // A loop inside another one's body ends many times.
  here.last = over && progress.is_top_level(loop);
  here.one_of_several = progress.top_level_loops() > 1;

  // A step with a loop in its body ends at the same step number as that loop's last step.
  if (progress.step == resumed.step + 1 && !std::exchange(looked_for_optimizers, true)) {
    for (const std::string& name : tracked.without_optimizer()) {
      say(fmt::format(
          "no tracked optimizer holds the parameters of '{}', which have gradients: track their optimizer, or "
          "its state is lost in a resume",
          name));
    }
  }
  if (may_have_diverged()) {
    const std::uint64_t steps = progress.step - resumed.step;
    require_alike(group, tracked.capture(), this->here,
                  steps == 1 ? "after the first step" : fmt::format("after {} steps", steps),
                  "gradients are not averaged; call session.average_gradients(net) before optimizer.step(), or use a "
                  "pipeline with Ddp()");
  }
  const std::uint64_t left =
      std::min(detail::kEndless,
               loop.loader != nullptr ? loop.loader->batches_left() : loop.target - std::min(loop.target, loop.done));
  StopRequest requests =
      agreement.at_boundary(group, progress.step, progress.step + left, clock_asks_for_save(here), this->here);
  if (loop.nested && loop.in_epoch && epoch_is_over) {
    // The epoch's own body is still to come and belongs to the saved state. On a stop request there is no time for it:
    // a resume from here does that body first.
    if (requests.stop.empty()) return;
    here.last = false;
  }
  if (saving.requested) requests.save = "save_now";

  SaveEvery due = every;
  if (group.world_size() > 1) due.time = {};  // rank 0's clock, by clock_asks_for_save()
  const SaveDecision decision = decide(due, here, saving.last, requests);
  const bool insist = decision.stop || (here.last && decision.save);
  if (decision.save &&
      (insist || !requests.save.empty() || saving.failures == 0 || group.broadcast(now >= saving.next_attempt))) {
    if (save(decision.reason, insist)) {
      saving.last.epochs = here.epochs;
    } else if (insist && !superseded) {
      hold(decision.reason);
    }
  }
  if (decision.hold) hold(decision.reason);
  agreement.saved();
  if (decision.stop && !stop) {
    stop = requests.stop;
    // Another rank's machine goes away: its time counts from here.
    if (agreement.own_stop().empty() && !stop_arrived) stop_arrived = boundary_done.value_or(begun);
  }
  if (saving.stops_at_non_finite && !here.last && !stop) stop = agreement.program_stop;
  boundary_done = Clock::now();
}

ProgressFacts Session::Impl::progress_facts(const LoopPosition& loop) const {
  ProgressFacts facts;
  facts.step = progress.step;
  const bool only = progress.top_level_loops() == 1 && progress.open.size() <= 1;
  if (loop.loader != nullptr) {
    const bool over = loop.loader->cursor() == 0 && loop.loader->epoch() > loop.first_epoch;
    facts.epoch = loop.loader->epoch() - loop.first_epoch + (over ? 0 : 1);
    facts.total_epochs = loop.target < detail::kEndless ? loop.target : 0;
    if (only && loop.target < detail::kEndless) facts.total_steps = loop.target * loop.loader->batches_per_epoch();
  } else if (only && loop.target < detail::kEndless) {
    facts.total_steps = loop.target;
  }
  facts.values = last_logged;
  return facts;
}

}  // namespace holdfast
