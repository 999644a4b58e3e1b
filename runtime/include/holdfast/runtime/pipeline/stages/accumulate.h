// Accumulate: one optimizer step for every `n` batches, as if they were one batch. The last window of an epoch has the
// batches that are left; its mean is right too, because each window knows its number of samples when it begins.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/runtime/pipeline/stage.h"

namespace holdfast {

namespace detail {

/// A window's micro-batches and samples (0: unknown), from its first micro-batch, and the share of one of its
/// micro-batches. Pure functions.
std::uint64_t window_length(std::uint64_t n, const StepFacts& first);
std::uint64_t window_samples(std::uint64_t length, const StepFacts& first);
double window_share(std::uint64_t length, std::uint64_t samples, const StepFacts& step);

}  // namespace detail

class Accumulate : public Stage {
 public:
  /// Throws Error(invalid) for 0.
  explicit Accumulate(std::uint64_t n);
  std::string name() const override { return "accumulate"; }
  Place place() const override { return Place::window; }
  void attach(StageContext& context) override;
  /// Throws Error(misfit) if batches of the program's size cannot fill a resumed window.
  void begin(MicroBatch& micro) override;
  void after_backward(const MicroBatch& micro) override;
  void drop_window() override { done_ = 0; }
  void save(State& state) const override;
  void load(const State& state) override;

 private:
  void require_fit(const StepFacts& step) const;

  std::uint64_t n_;
  std::uint64_t done_ = 0;     // micro-batches of the window
  std::uint64_t length_ = 0;   // of the window
  std::uint64_t samples_ = 0;  // of all ranks in it
  std::uint64_t seen_ = 0;     // of these, in the done_ micro-batches
  std::uint64_t epoch_ = 0;
  std::uint64_t loop_ = 0;
  bool counted_ = false;  // done_ includes the batch begun last
  std::function<void(const std::string&)> say_;
};

}  // namespace holdfast
