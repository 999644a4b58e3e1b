#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <source_location>
#include <string_view>
#include <utility>

#include "checkpoint/replication_check.h"
#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"
#include "holdfast/storage/text/units.h"
#include "ranks/group_control.h"
#include "session/session_impl.h"

namespace holdfast {
namespace {

std::string in_words(const std::source_location& site) { return fmt::format("{}:{}", site.file_name(), site.line()); }

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

}  // namespace

StepInfo Session::Impl::SessionLoop::begin_step() {
  LoopPosition& here = *position_;
  here.in_step = true;
  StepFacts facts;
  if (here.loader != nullptr) {
    facts = step_facts(*here.loader, here.done + 1);
  } else {
    facts.number = here.done + 1;
    facts.steps_left = here.target - here.done - 1;
  }
  facts.loop = here.id;
  return session_.step_info = StepInfo(facts);
}

// An iteration with a session loop in its body is not counted, because the iterations of that loop were.
void Session::Impl::SessionLoop::count_step() {
  LoopPosition& here = *position_;
  here.in_step = false;
  ++here.done;
  if (std::exchange(here.step_body, {}).loops.empty()) ++session_.progress.step;
  if (here.loader != nullptr) {
    if (!here.loader->counts_batches()) session_.progress.samples += here.loader->batch_samples();
    session_.progress.epoch = here.loader->epoch();
  }
}

void Session::Impl::SessionLoop::end_step() {
  if (is_over_) return;
  session_.leave_next_loop(*position_, /*thrown=*/false);
  session_.here = site_;
  // The loop inside stopped early: the resumed session does the rest of this body.
  if (session_.stop && !position_->step_body.loops.empty()) return;
  count_step();
  session_.boundary(position_, position_->is_complete());
}

void Session::Impl::SessionLoop::begin_epoch() {
  position_->epoch = position_->loader->epoch();
  position_->in_epoch = true;
}

void Session::Impl::SessionLoop::begin_epoch_steps() {
  session_.here = site_;
  if (const LoaderBase& loader = *position_->loader; loader.counts_batches()) {
    if (session_.group.world_size() > 1) {
      (void)session_.group.compare("session.epochs", fmt::format("{} batches", loader.size()), "", site_);
    }
    if (!loader.change().empty()) session_.say(loader.change());
  }
  if (std::exchange(load_again_in_epoch_, false)) session_.load_again();
}

void Session::Impl::SessionLoop::leave_epoch_steps() {
  if (is_over_ || !position_->in_step) return;
  session_.leave_next_loop(*position_, /*thrown=*/false);
  count_step();
}

void Session::Impl::SessionLoop::end_epoch() {
  if (is_over_) return;
  session_.leave_next_loop(*position_, /*thrown=*/false);
  session_.here = site_;
  LoopPosition& here = *position_;
  here.in_epoch = false;
  if (session_.stop) return;
  here.epoch_body = {};
  if (here.loader->epoch() == here.epoch) {  // the body left its epoch before the end
    if (const std::uint64_t left = here.loader->samples_left(); left > 0 && here.over == LoopPosition::Over::no) {
      session_.say(fmt::format("epoch {} was left with {} of its {} {} unused: the next epoch follows", here.epoch + 1,
                               storage::format_count(left), storage::format_count(here.loader->samples_per_epoch()),
                               here.loader->counts_batches() ? "batches" : "samples"));
    }
    here.loader->start_epoch(here.epoch + 1);
  }
  session_.boundary(position_, here.at_end());
}

void Session::Impl::SessionLoop::complete() {
  if (!is_over_) end(LoopPosition::Over::no);
}

void Session::Impl::SessionLoop::leave(bool thrown) {
  if (is_over_) return;
  session_.here = site_;
  if (!thrown) return leave_now(thrown);
  try {
    leave_now(thrown);
  } catch (...) {  // another exception is already propagating
    end(LoopPosition::Over::left);
  }
}

// A step that is left counts as done: the state includes what its body did, and its batch does not come again.
void Session::Impl::SessionLoop::leave_now(bool thrown) {
  LoopPosition& here = *position_;
  session_.leave_next_loop(here, thrown);
  const bool top = session_.progress.is_top_level(here);
  const bool in_step = here.in_step;
  if (in_step) count_step();
  if (session_.stop) return end(LoopPosition::Over::no);  // its state is saved
  const bool at_end = here.is_complete();                 // left in its last step or epoch, or after session.done()
  const bool is_done = here.over == LoopPosition::Over::done;
  const bool complete = at_end && (is_done || !thrown);
  if (at_end) {  // else the next start would begin the last epoch's body again
    here.in_epoch = false;
    here.epoch_body = {};
  }
  if (!complete) here.over = LoopPosition::Over::left;
  const char* const how = thrown ? "by an exception in" : "in";
  if (top && !at_end) {
    session_.say(fmt::format(
        "the loop was left {} step {}{}: that step counts, and the next start continues after it; where the loop is "
        "complete, call session.done() before leaving it",
        how, storage::format_count(here.done),
        here.loader == nullptr && here.target < kEndless ? fmt::format(" of {}", storage::format_count(here.target))
                                                         : ""));
  } else if (top && !is_done && (in_step || thrown)) {
    session_.say(fmt::format("the loop was left {} its last {}, which counts: {}", how, in_step ? "step" : "epoch",
                             complete ? "the loop is complete" : "the next start goes past the loop"));
  }
  if (thrown) {  // the other ranks do not know of it
    session_.progress.mark(position_);
    ++session_.progress.boundaries;
  } else {
    session_.boundary(position_, complete);
  }
  // finish() finds out whether the program ends here or continues after this loop.
  if (top && (thrown || !complete) && !session_.stop) session_.hold("the loop was left");
  end(complete ? LoopPosition::Over::no : LoopPosition::Over::left);
}

void Session::Impl::SessionLoop::end(LoopPosition::Over how) {
  is_over_ = true;
  session_.progress.end(*position_, how);
  std::erase_if(session_.loops, [](const auto& loop) { return loop.expired() || loop.lock()->is_over_; });
}

// Leaves the loops that still run when the program calls finish() in the body of one.
void Session::Impl::leave_all() {
  while (!loops.empty()) {
    const auto innermost = loops.back().lock();
    if (innermost) innermost->leave(/*thrown=*/false);
    std::erase_if(loops, [&](const auto& loop) { return loop.expired() || loop.lock() == innermost; });
  }
}

// Leaves the loop of session.next() in the body of another loop, because that body is over.
void Session::Impl::leave_next_loop(const LoopPosition& outer, bool thrown) {
  if (next_loop && &next_loop->position() != &outer) {
    const auto at = [&](const LoopPosition& position) {
      return std::find_if(progress.open.begin(), progress.open.end(),
                          [&](const auto& one) { return one.get() == &position; });
    };
    if (at(outer) < at(next_loop->position())) std::exchange(next_loop, nullptr)->leave(thrown);
  }
  if (left_when_done && progress.open.size() <= left_when_done->second) left_when_done.reset();
}

std::optional<StepInfo> Session::Impl::next_step(Site site) {
  if (!next_loop) {
    if (left_when_done && same(left_when_done->first, site)) {
      throw Error(storage::StatusCode::invalid,
                  fmt::format("the loop of session.next() in {} was declared done, then another loop began, and now "
                              "it is called there again: let session.next() end the loop before another one begins",
                              in_words(site)));
    }
    LoopPosition position;
    position.target = kEndless;
    next_loop = begin_loop(position, site);
  } else if (progress.open.back().get() == &next_loop->position() && same(next_loop->site(), site)) {
    next_loop->end_step();
  } else {
    throw Error(
        storage::StatusCode::invalid,
        fmt::format("session.next() is called in {} while the loop of session.next() in {} is not over: end that "
                    "one by session.done(); for a loop inside another one use session.steps()",
                    in_words(site), in_words(next_loop->site())));
  }
  if (next_loop->more()) return next_loop->begin_step();
  std::exchange(next_loop, nullptr)->complete();
  return std::nullopt;
}

std::shared_ptr<Session::Impl::SessionLoop> Session::Impl::begin_loop(LoopPosition proto, Site site) {
  if (next_loop && progress.open.back().get() == &next_loop->position() &&
      next_loop->position().over == LoopPosition::Over::done) {
    left_when_done = {next_loop->site(), progress.open.size() - 1};
    std::exchange(next_loop, nullptr)->leave(/*thrown=*/false);
  }
  here = site;
  require_alive();
  before_untrack.reset();
  const std::shared_ptr<LoopPosition> position = progress.begin(std::move(proto));
  restore();
  tracked.begin();  // for objects tracked since the loop before
  if (const std::string note = progress.resume(*position); !note.empty()) say(note);
  const bool is_first = loops_begun++ == 0 && progress.open.empty();
  progress.open.push_back(position);
  // The code that the program ran before this loop had also run before the version was made.
  const bool tracked_late = std::exchange(tracks_late, false);
  const bool passed_others =
      position->saved_here && (!is_first || tracked_late) && progress.boundaries == boundaries_at_load;
  const bool in_epoch = position->nested && position->loader->cursor() > 0;
  const auto loop = std::make_shared<SessionLoop>(*this, position, site);
  loop->load_again_in_epoch(position->saved_here && in_epoch && progress.boundaries == boundaries_at_load);
  if (passed_others && !in_epoch) load_again();
  loops.push_back(loop);
  held.reset();
  if (position->over == LoopPosition::Over::left && position->saved_here) hold("the loop was left");
  // The epochs that the last version counts as done: in nested loops, those whose bodies are done too.
  if (position->loader != nullptr && last_save.step == progress.step) {
    last_save.epochs = position->loader->epoch() + (position->loader->epoch_done() && !position->nested ? 1 : 0);
  }
  start_together(position);
  if (on_non_finite.act == OnNonFinite::Act::rollback && !has_base && saves == 0 && !stop) {
    progress.mark(position);
    (void)save("before the first step", /*insist=*/false);
  }
  return loop;
}

// A loop begins: all ranks must begin the same one. A rank that received a stop request before reports it here.
void Session::Impl::start_together(const std::shared_ptr<LoopPosition>& position) {
  const LoopPosition& loop = *position;
  if (loop.loader != nullptr && !loop.loader->counts_batches()) {
    loop.loader->shard(group.rank(), group.world_size());
  }
  const auto signal = signals.stop_signal();
  const std::string mine = signal ? std::string(signal_name(*signal)) : stop_reason.value_or("");
  const std::string what =
      loop.kind == LoopPosition::Kind::over_loader
          ? fmt::format("{} epochs of {} samples in batches of {}{} from epoch {} on, seed {}", loop.target,
                        loop.loader->samples_per_epoch(), loop.loader->batch_size(),
                        loop.loader->is_shuffled() ? ", shuffled," : "", loop.first_epoch, loop.loader->seed())
      : loop.loader != nullptr
          ? fmt::format("{} epochs of the program's own batches from epoch {} on", loop.target, loop.first_epoch)
          : fmt::format("{} steps", loop.target);
  for (const auto& theirs : group.compare("session.steps", what, mine, here)) {
    const std::string asked_for = theirs.get<std::string>();
    if (stop || asked_for.empty()) continue;
    progress.mark(position);
    if (progress.boundaries != last_save.boundaries) save(asked_for, /*insist=*/true);
    if (!stop) stop = asked_for;
  }
}

// What all ranks must do here for a reason that only one of them may know: a signal, or rank 0's clock.
StopRequest Session::Impl::orders_here(const LoopPosition& loop, const Boundary& here) {
  StopRequest wish;
  if (stop_reason) wish.stop = *stop_reason;
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
  // Sends each wish once, because the answer comes at a later step.
  if (stop_was_wished) wish.stop.clear();
  if (wish_is_out) wish.save.clear();
  stop_was_wished |= !wish.stop.empty();
  wish_is_out |= !wish.empty();
  const std::uint64_t left = std::min(
      kEndless, loop.loader != nullptr ? loop.loader->batches_left() : loop.target - std::min(loop.target, loop.done));
  const StopRequest order = GroupControl(group).at_step(progress.step, progress.step + left, wish, this->here);
  if (!order.empty()) wish_is_out = false;
  return order;
}

// Whether parameters may just have changed for the first time, so that ranks that do not average gradients now differ:
// at a pipeline's first update, and at a plain loop's first optimizer step. The session does not see the latter, so a
// loop that averages nothing is checked a few more times, because it may use several batches per optimizer step.
bool Session::Impl::may_have_parted() {
  if (group.world_size() == 1) return false;
  const std::uint64_t steps = progress.step - base_step;
  const bool updated =
      std::erase_if(not_updated, [](const auto& one) { return one.first->updates() > one.second; }) > 0;
  const bool plain = pipelines.empty() && !gradients_were_compared && steps <= 64;
  return steps == 1 || updated || (plain && std::has_single_bit(steps));
}

// `over`: no iteration of this loop follows.
void Session::Impl::boundary(const std::shared_ptr<LoopPosition>& position, bool over) {
  const LoopPosition& loop = *position;
  if (!waiting.empty()) {
    throw Error(
        storage::StatusCode::misfit,
        fmt::format(
            "the checkpoint was made in a later phase of the program, which tracked '{}', and a loop before "
            "that phase has steps left: once a later phase has begun, an earlier loop cannot be made longer, and "
            "'{}' cannot be left out",
            *waiting.begin(), *waiting.begin()));
  }
  const Clock::time_point now = Clock::now();
  progress.mark(position);
  ++progress.boundaries;
  storage::death_note_steps(progress.step - base_step);
  if (progress.step - base_step == storage::kPoisonSteps) storage::disarm_death_note();
  console.progress(progress.step, now, [&] { return progress_facts(loop); });
  if (manager) manager->note_step(progress.step);

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
  if (progress.step == base_step + 1 && !std::exchange(looked_for_optimizers, true)) {
    for (const std::string& name : tracked.without_optimizer()) {
      say(fmt::format(
          "no tracked optimizer holds the parameters of '{}', which have gradients: track their optimizer, or "
          "its state is lost in a resume",
          name));
    }
  }
  if (may_have_parted()) {
    const std::uint64_t steps = progress.step - base_step;
    require_alike(group, tracked.capture(), this->here,
                  steps == 1 ? "after the first step" : fmt::format("after {} steps", steps),
                  "gradients are not averaged; call session.average_gradients(net) before optimizer.step(), or use a "
                  "pipeline with Ddp()");
  }
  const StopRequest order = orders_here(loop, here);
  if (!order.save.empty()) asked.save = order.save;
  if (!order.stop.empty()) asked.stop = order.stop;
  StopRequest requests = asked;
  if (loop.nested && loop.in_epoch && epoch_is_over) {
    // The epoch's own body is still to come and belongs to the saved state. On a stop request there is no time for it:
    // a resume from here does that body first.
    if (requests.stop.empty()) return;
    here.last = false;
  }
  if (save_requested) requests.save = "save_now";

  SaveEvery due = every;
  if (group.world_size() > 1) due.time = {};  // rank 0's clock, by orders_here()
  const SaveDecision decision = decide(due, here, last_save, requests);
  const bool insist = decision.stop || (here.last && decision.save);
  if (decision.save && (insist || !requests.save.empty() || failures == 0 || group.broadcast(now >= next_attempt))) {
    if (save(decision.reason, insist)) {
      last_save.epochs = here.epochs;
    } else if (insist && !superseded) {
      hold(decision.reason);
    }
  }
  if (decision.hold) hold(decision.reason);
  asked.save.clear();
  if (decision.stop && !stop) stop = requests.stop;
  if (stops_at_non_finite && !here.last && !stop) stop = stop_reason;
}

ProgressFacts Session::Impl::progress_facts(const LoopPosition& loop) const {
  ProgressFacts facts;
  facts.step = progress.step;
  const bool only = progress.top_level_loops() == 1 && progress.open.size() <= 1;
  if (loop.loader != nullptr) {
    const bool over = loop.loader->cursor() == 0 && loop.loader->epoch() > loop.first_epoch;
    facts.epoch = loop.loader->epoch() - loop.first_epoch + (over ? 0 : 1);
    facts.total_epochs = loop.target < kEndless ? loop.target : 0;
    if (only && loop.target < kEndless) facts.total_steps = loop.target * loop.loader->batches_per_epoch();
  } else if (only && loop.target < kEndless) {
    facts.total_steps = loop.target;
  }
  facts.values = last_logged;
  return facts;
}

}  // namespace holdfast
