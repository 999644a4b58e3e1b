#include <fmt/format.h>

#include <algorithm>
#include <source_location>
#include <string_view>
#include <utility>

#include "holdfast/runtime/error.h"
#include "session/session_impl.h"
#include "session/session_loop.h"

namespace holdfast {
namespace {

std::string in_words(const std::source_location& site) { return fmt::format("{}:{}", site.file_name(), site.line()); }

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

}  // namespace

std::shared_ptr<Session::Impl::SessionLoop> Session::Impl::begin_loop(LoopPosition proto, Site site) {
  if (next_loop && progress.open.back().get() == &next_loop->position() &&
      next_loop->position().over == LoopPosition::Over::done) {
    left_when_done = {next_loop->site(), progress.open.size() - 1};
    std::exchange(next_loop, nullptr)->leave(/*thrown=*/false);
  }
  here = site;
  lifetimes.require_alive();
  lifetimes.begin_loop();
  const std::shared_ptr<LoopPosition> position = progress.begin(std::move(proto));
  restore();
  tracked.begin();  // for objects tracked since the loop before
  if (const std::string note = progress.resume(*position); !note.empty()) say(note);
  const bool is_first = loops_begun++ == 0 && progress.open.empty();
  progress.open.push_back(position);
  // The code that the program ran before this loop had also run before the version was made.
  const bool tracked_late = std::exchange(resumed.tracks_late, false);
  const bool passed_others =
      position->saved_here && (!is_first || tracked_late) && progress.boundaries == resumed.boundaries;
  const bool in_epoch = position->nested && position->loader->cursor() > 0;
  const auto loop = std::make_shared<SessionLoop>(*this, position, site);
  loop->load_again_in_epoch(position->saved_here && in_epoch && progress.boundaries == resumed.boundaries);
  if (passed_others && !in_epoch) load_again();
  loops.push_back(loop);
  saving.held.reset();
  if (position->over == LoopPosition::Over::left && position->saved_here) hold("the loop was left");
  // The epochs that the last version counts as done: in nested loops, those whose bodies are done too.
  if (position->loader != nullptr && saving.last.step == progress.step) {
    saving.last.epochs = position->loader->epoch() + (position->loader->epoch_done() && !position->nested ? 1 : 0);
  }
  start_together(position);
  if (on_non_finite.act == OnNonFinite::Act::rollback && !resumed.has_base && saving.count == 0 && !stop) {
    progress.mark(position);
    (void)save("before the first step, for a rollback", /*insist=*/false);
  }
  return loop;
}

// A loop begins: all ranks must begin the same one. A rank that received a stop request before reports it here.
void Session::Impl::start_together(const std::shared_ptr<LoopPosition>& position) {
  const LoopPosition& loop = *position;
  if (loop.loader != nullptr && !loop.loader->counts_batches()) {
    loop.loader->shard(group.rank(), group.world_size());
  }
  const std::string what =
      loop.kind == LoopPosition::Kind::over_loader
          ? fmt::format("{} epochs of {} samples in batches of {}{} from epoch {} on, seed {}", loop.target,
                        loop.loader->samples_per_epoch(), loop.loader->batch_size(),
                        loop.loader->is_shuffled() ? ", shuffled," : "", loop.first_epoch, loop.loader->seed())
      : loop.loader != nullptr
          ? fmt::format("{} epochs of the program's own batches from epoch {} on", loop.target, loop.first_epoch)
          : fmt::format("{} steps", loop.target);
  for (const auto& theirs : group.compare("session.steps", what, agreement.own_stop(), here)) {
    const std::string asked_for = theirs.get<std::string>();
    if (stop || asked_for.empty()) continue;
    progress.mark(position);
    if (progress.boundaries != saving.last.boundaries) save(asked_for, /*insist=*/true);
    if (!stop) stop = asked_for;
  }
}

std::optional<StepInfo> Session::Impl::next_step(Site site) {
  if (!next_loop) {
    if (left_when_done && same(left_when_done->first, site)) {
      throw Error(
          storage::StatusCode::invalid,
          fmt::format("session.next() is called again in {}, where its loop was declared done and another loop has "
                      "begun since: let session.next() return nothing before another loop begins",
                      in_words(site)));
    }
    LoopPosition position;
    position.target = detail::kEndless;
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

// Leaves the loops that still run when the program calls finish() in the body of one.
void Session::Impl::leave_all() {
  while (!loops.empty()) {
    const auto innermost = loops.back().lock();
    if (innermost) innermost->leave(/*thrown=*/false);
    std::erase_if(loops, [&](const auto& loop) { return loop.expired() || loop.lock() == innermost; });
  }
}

}  // namespace holdfast
