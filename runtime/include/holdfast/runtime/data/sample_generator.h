// Random numbers inside a dataset's `get` that depend only on (seed, epoch, index), so an augmented sample does not
// depend on the thread, process or time that reads it. LibTorch's default generator is one per process: drawing from it
// in `get` would change dropout, and differently for each number of workers.
//
//   Example<> get(size_t index) override {
//     auto generator = holdfast::sample_generator(index);
//     auto noise = torch::rand({28, 28}, generator);
//
// The Loader that calls `get` provides seed and epoch on the calling thread. Outside a loader both are 0.
#pragma once

#include <ATen/core/Generator.h>

#include <cstddef>
#include <cstdint>

namespace holdfast {

/// 64 well-mixed bits of (seed, epoch, index), to seed a generator of another library with.
std::uint64_t sample_seed(std::size_t index);

/// A new CPU generator at the start of the stream of (seed, epoch, index); costs about a microsecond. LibTorch's CPU
/// engine takes the low 32 bits of the seed.
at::Generator sample_generator(std::size_t index);

}  // namespace holdfast
