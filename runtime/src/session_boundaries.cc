#include <fmt/format.h>

#include <bit>

#include "holdfast/storage/death_note.h"
#include "session_impl.h"
#include "shared_version.h"

namespace holdfast {

void Session::Impl::SessionLoop::start() {
  session_.here = site_;
  session_.restore();
  session_.progress.start(index_);
  const LoopPosition& here = position();
  // What the last version counts as done: of nested loops the epochs whose bodies are done too.
  if (here.loader != nullptr && session_.last_save.step == session_.progress.step) {
    session_.last_save.epochs = here.loader->epoch() + (here.loader->epoch_done() && !here.nested ? 1 : 0);
  }
  session_.start_together(here);
}

StepInfo Session::Impl::SessionLoop::begin_step() {
  session_.in_step = true;
  const LoopPosition& here = position();
  const std::uint64_t number = session_.progress.step + 1;
  StepFacts facts;
  if (here.loader != nullptr) {
    facts = step_facts(*here.loader, number);
  } else {
    facts.number = number;
    facts.steps_left = here.target - here.done - 1;
  }
  facts.loop = index_;
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
  const StepOrder order = group.at_step(progress.step, progress.step + left, wish, this->here);
  if (!order.empty()) wish_is_out = false;
  return order;
}

// Whether parameters may have moved for the first time just now, so that those of ranks which do not average gradients
// have parted: at a pipeline's first update, and at a loop's first optimizer step. That one is not seen, so a loop that
// averages nothing is looked at a few times more, for it may take several batches to a step.
bool Session::Impl::may_have_parted() {
  if (group.world_size() == 1) return false;
  const std::uint64_t steps = progress.step - base_step;
  const bool updated =
      std::erase_if(not_updated, [](const auto& one) { return one.first->updates() > one.second; }) > 0;
  const bool plain = pipelines.empty() && !gradients_were_compared && steps <= 64;
  return steps == 1 || updated || (plain && std::has_single_bit(steps));
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

  if (may_have_parted()) {
    const std::uint64_t steps = progress.step - base_step;
    require_alike(group, tracked.capture(), this->here,
                  steps == 1 ? "after the first step" : fmt::format("after {} steps", steps),
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

}  // namespace holdfast
