#include "holdfast/runtime/data/loop.h"

#include <fmt/format.h>

#include "holdfast/runtime/error.h"

namespace holdfast {

void LoopCount::refuse(std::int64_t count) {
  throw Error(storage::StatusCode::invalid, fmt::format("the count of a loop is {}: it must be 0 or more", count));
}

BatchCounter::BatchCounter()
    : LoaderBase({.batch_size = 1, .shuffle = false}, 1,
                 [](const std::vector<std::size_t>&) { return std::make_shared<char>(); }, {}) {
  count_batches();
}

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

}  // namespace holdfast
