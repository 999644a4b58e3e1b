// While a SampleScope lives, sample_generator() on this thread draws from its seed and epoch.
#pragma once

#include <cstdint>

namespace holdfast {

class SampleScope {
 public:
  SampleScope(std::uint64_t seed, std::uint64_t epoch);
  ~SampleScope();
  SampleScope(const SampleScope&) = delete;
  SampleScope& operator=(const SampleScope&) = delete;

 private:
  std::uint64_t outer_;  // a dataset may read another loader's batches inside its own get
};

}  // namespace holdfast
