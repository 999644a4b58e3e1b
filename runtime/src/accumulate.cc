#include "holdfast/runtime/accumulate.h"

#include <fmt/format.h>

#include <algorithm>

#include "holdfast/runtime/error.h"

namespace holdfast {

std::uint64_t window_length(std::uint64_t n, const StepFacts& first) { return std::min(n, first.steps_left + 1); }

std::uint64_t window_samples(std::uint64_t length, const StepFacts& first) {
  return first.samples + std::min((length - 1) * first.batch_size, first.samples_left);
}

double window_share(std::uint64_t length, std::uint64_t samples, const StepFacts& step) {
  if (samples == 0) return step.weight / static_cast<double>(length);
  return step.weight * static_cast<double>(step.samples) / static_cast<double>(samples);
}

Accumulate::Accumulate(std::uint64_t n) : n_(n) {
  if (n == 0) throw Error(storage::StatusCode::invalid, "Accumulate(0): a window has at least one batch");
}

void Accumulate::attach(StageContext& context) { say_ = context.say; }

void Accumulate::begin(MicroBatch& micro) {
  if (done_ > 0 && micro.step.samples > 0 && micro.step.epoch != epoch_) {
    say_(fmt::format("the loop left epoch {} inside a window: its {} of {} batches are dropped", epoch_, done_,
                     length_));
    done_ = 0;
  }
  if (done_ == 0) {
    length_ = window_length(n_, micro.step);
    samples_ = window_samples(length_, micro.step);
    epoch_ = micro.step.epoch;
  }
  micro.first = done_ == 0;
  micro.share = window_share(length_, samples_, micro.step);
  done_ = (done_ + 1) % length_;
  micro.last = done_ == 0;
}

void Accumulate::save(State& state) const {
  state.put("done", done_).put("length", length_).put("samples", samples_).put("epoch", epoch_);
}

void Accumulate::load(const State& state) {
  state.get_to("done", done_);
  state.get_to("length", length_);
  state.get_to("samples", samples_);
  state.get_to("epoch", epoch_);
}

}  // namespace holdfast
