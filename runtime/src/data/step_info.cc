#include "holdfast/runtime/data/step_info.h"

#include "holdfast/runtime/data/loader_base.h"

namespace holdfast::detail {

StepFacts step_facts(const LoaderBase& loader, std::uint64_t number) {
  StepFacts facts;
  facts.number = number;
  facts.epoch = loader.epoch();
  facts.steps_left = loader.batches_left();
  if (loader.counts_batches()) return facts;
  facts.weight = loader.weight();
  facts.samples = loader.batch_samples();
  facts.batch_size = loader.batch_size();
  facts.samples_left = loader.samples_left();
  return facts;
}

}  // namespace holdfast::detail
