#include "holdfast/runtime/pipeline/stages/accumulate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace detail {

std::uint64_t window_length(std::uint64_t n, const StepFacts& first) { return std::min(n, first.steps_left + 1); }

std::uint64_t window_samples(std::uint64_t length, const StepFacts& first) {
  return first.samples + std::min((length - 1) * first.batch_size, first.samples_left);
}

double window_share(std::uint64_t length, std::uint64_t samples, const StepFacts& step) {
  if (samples == 0) return step.weight / static_cast<double>(length);
  return step.weight * static_cast<double>(step.samples) / static_cast<double>(samples);
}

}  // namespace detail

Accumulate::Accumulate(std::uint64_t n) : n_(n) {
  if (n == 0) throw Error(storage::StatusCode::invalid, "Accumulate(0): a window has at least one batch");
}

void Accumulate::attach(StageContext& context) { say_ = context.say; }

void Accumulate::begin(MicroBatch& micro) {
  const bool other_epoch = micro.step.samples > 0 && micro.step.epoch != epoch_;
  if (done_ > 0 && (other_epoch || micro.step.loop != loop_)) {
    say_(fmt::format("the loop left epoch {} inside a window: its {} of {} batches are dropped", epoch_, done_,
                     length_));
    done_ = 0;
  }
  if (done_ == 0) {
    length_ = detail::window_length(n_, micro.step);
    samples_ = detail::window_samples(length_, micro.step);
    seen_ = 0;
    epoch_ = micro.step.epoch;
    loop_ = micro.step.loop;
  }
  require_fit(micro.step);
  micro.first = done_ == 0;
  micro.share = detail::window_share(length_, samples_, micro.step);
  // If samples are counted, they decide when the window is full, because batches may have another size after a resume.
  micro.last =
      micro.step.steps_left == 0 || (samples_ > 0 ? seen_ + micro.step.samples >= samples_ : done_ + 1 >= length_);
  counted_ = false;
  if (!micro.last) return;
  // Batches may have been left out since the window began: the mean is over those that were counted.
  const std::uint64_t expected = samples_ > 0 ? samples_ : length_;
  const std::uint64_t came = samples_ > 0 ? seen_ + micro.step.samples : done_ + 1;
  if (came >= expected) return;
  micro.earlier = static_cast<double>(expected) / static_cast<double>(came);
  micro.share *= micro.earlier;
}

// A window that began with another batch size is filled to the sample, because its partial gradients are shares of that
// number of samples.
void Accumulate::require_fit(const StepFacts& step) const {
  const std::uint64_t left = samples_ - seen_;
  if (done_ == 0 || samples_ == 0 || step.batch_size == 0 || left % step.batch_size == 0) return;
  if (step.samples + step.samples_left <= left) return;  // the epoch's last window has whatever is left
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t size = left; size > 0 && sizes.size() < 4; --size) {
    if (left % size == 0) sizes.push_back(size);
  }
  throw Error(
      storage::StatusCode::misfit,
      fmt::format("the run continues inside a window of {} samples, of which {} are left, and batches of {} do not "
                  "add up to them: use a batch_size of {}, or the one that it was saved with",
                  samples_, left, step.batch_size, fmt::join(sizes, ", ")));
}

// Counts the batch only here: one whose function threw, or whose loss was not used, has no part in the window.
void Accumulate::after_backward(const MicroBatch& micro) {
  if (std::exchange(counted_, true)) return;  // another loss of the same batch
  done_ = micro.last ? 0 : done_ + 1;
  seen_ += micro.step.samples;
}

void Accumulate::save(State& state) const {
  state.put("done", done_).put("length", length_).put("samples", samples_).put("seen", seen_);
  state.put("epoch", epoch_).put("loop", loop_);
}

void Accumulate::load(const State& state) {
  state.get_to("done", done_);
  state.get_to("length", length_);
  state.get_to("samples", samples_);
  state.get_to("seen", seen_);
  state.get_to("epoch", epoch_);
  state.get_to("loop", loop_);
}

}  // namespace holdfast
