#include "session/session_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/text/units.h"

namespace holdfast {

StepInfo Session::Impl::SessionLoop::begin_step() {
  LoopPosition& here = *position_;
  here.in_step = true;
  StepFacts facts;
  if (here.loader != nullptr) {
    facts = detail::step_facts(*here.loader, here.done + 1);
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
  if (const detail::LoaderBase& loader = *position_->loader; loader.counts_batches()) {
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

// A step that is left counts as done: the state includes what its body did, and its batch is not repeated.
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
        "the loop was left {} step {}{}: that step counts, and the next start continues after it; if the loop is "
        "complete, call session.done() before leaving it",
        how, storage::format_count(here.done),
        here.loader == nullptr && here.target < detail::kEndless
            ? fmt::format(" of {}", storage::format_count(here.target))
            : ""));
  } else if (top && !is_done && (in_step || thrown)) {
    session_.say(fmt::format("the loop was left {} its last {}, which counts: {}", how, in_step ? "step" : "epoch",
                             complete ? "the loop is complete" : "the next start skips the loop"));
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

}  // namespace holdfast
