#include "holdfast/runtime/data/sample_generator.h"

#include <ATen/CPUGeneratorImpl.h>

#include "data/sample_scope.h"
#include "splitmix64.h"

namespace holdfast {
namespace {

std::uint64_t stream_of(std::uint64_t seed, std::uint64_t epoch) { return splitmix64(~splitmix64(seed) + epoch); }

thread_local std::uint64_t current_stream = stream_of(0, 0);

}  // namespace

SampleScope::SampleScope(std::uint64_t seed, std::uint64_t epoch) : outer_(current_stream) {
  current_stream = stream_of(seed, epoch);
}

SampleScope::~SampleScope() { current_stream = outer_; }

std::uint64_t sample_seed(std::size_t index) { return splitmix64(current_stream + index); }

at::Generator sample_generator(std::size_t index) { return at::detail::createCPUGenerator(sample_seed(index)); }

}  // namespace holdfast
