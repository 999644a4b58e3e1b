// Randomness inside a dataset's `get`: numbers that depend on (seed, epoch, index) alone, so an augmented sample is the
// same whichever thread reads it, whenever, and in whichever process. LibTorch's default generator is one per process:
// drawing from it in `get` would disturb dropout, differently with every number of workers.
//
//   Example<> get(size_t index) override {
//     auto generator = holdfast::sample_generator(index);
//     auto noise = torch::rand({28, 28}, generator);
//
// The Loader that called `get` provides seed and epoch, on the thread that it called on. Outside a loader both are 0.
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
