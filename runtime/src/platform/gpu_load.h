// How busy a GPU is, from NVIDIA's management library: memory and utilisation by all programs, not only by this one.
#pragma once

#include <cstdint>
#include <optional>

namespace holdfast {

struct GpuLoad {
  std::uint64_t memory_total = 0;  // bytes
  std::uint64_t memory_free = 0;
  unsigned utilisation = 0;  // per cent of the last sampling period in which a kernel ran
};

/// `gpu`: its index in list_gpus(). Empty without a driver, or without libnvidia-ml.so.1. Any thread.
std::optional<GpuLoad> gpu_load(int gpu);

}  // namespace holdfast
