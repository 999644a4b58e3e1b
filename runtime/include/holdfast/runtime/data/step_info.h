// StepInfo: a step of a loop, apart from its batch. Stages of a pipeline see its StepFacts.
#pragma once

#include <cstdint>

namespace holdfast {

/// The properties of a step apart from its batch.
struct StepFacts {
  std::uint64_t number = 0;  // within the loop, from 1
  std::uint64_t epoch = 0;
  double weight = 1;
  std::uint64_t samples = 0;       // of all ranks; 0: the program makes its own batches
  std::uint64_t batch_size = 0;    // of a full batch
  std::uint64_t samples_left = 0;  // in the epoch, after this step
  std::uint64_t steps_left = 0;    // in the epoch, or of the count, after this one
  std::uint64_t loop = 0;          // number of the loop; the same in each session of the run
};

namespace detail {

class LoaderBase;

/// The facts of the batch that a loader handed out last.
StepFacts step_facts(const LoaderBase& loader, std::uint64_t number);

}  // namespace detail

/// A step as the program and its pipelines see it.
class StepInfo {
 public:
  StepInfo() = default;
  explicit StepInfo(const StepFacts& facts) : facts_(facts) {}
  std::uint64_t number() const { return facts_.number; }  // in its loop, from 1, over all sessions of the run
  std::uint64_t epoch() const { return facts_.epoch; }    // from 0
  /// The weight of this rank's mean loss in the mean over all samples of the step; 1 in one process.
  double weight() const { return facts_.weight; }
  const StepFacts& facts() const { return facts_; }

 private:
  StepFacts facts_;
};

}  // namespace holdfast
