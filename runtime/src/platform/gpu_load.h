// How busy a GPU is, as NVIDIA's management library says: memory and utilisation by all programs, not ours alone.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

namespace holdfast {

struct GpuLoad {
  std::uint64_t memory_total = 0;  // bytes
  std::uint64_t memory_free = 0;
  unsigned utilisation = 0;  // per cent of the last sampling period in which a kernel ran
};

/// Of a CUDA device as this process counts them. Empty where there is none, or no libnvidia-ml.so.1. Any thread.
std::optional<GpuLoad> gpu_load(c10::Device device);

}  // namespace holdfast
