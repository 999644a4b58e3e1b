// The device that a run computes on: --holdfast.device compared with the devices of this machine. A GPU that this
// LibTorch cannot use is refused with a remedy; else the first kernel would fail, or the run would take days on the
// CPU.
#pragma once

#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/runtime/options/option_types.h"
#include "holdfast/runtime/platform/gpu_driver.h"

namespace holdfast {

struct GpuFacts {
  std::vector<Gpu> gpus = {};               // in the driver's order; CUDA_VISIBLE_DEVICES applies
  std::string driver_cuda = {};             // the newest CUDA that the driver supports, "12.4"; empty: no driver
  bool libtorch_has_cuda = false;           // this LibTorch was built with CUDA
  bool libtorch_sees_gpu = false;           // it finds a GPU that it can access
  std::string libtorch_cuda = {};           // "13.0"
  std::string libtorch_architectures = {};  // the -gencode flags it was built with; empty: unknown
};

/// Asks driver and LibTorch. It initialises the driver: do not call it before a fork whose child uses CUDA.
GpuFacts find_gpus();

struct DeviceChoice {
  c10::Device device = c10::kCPU;
  std::string note = {};  // a sentence for the log: why the CPU, although a GPU exists; else empty
  std::string gpu = {};   // its name and id, "NVIDIA H200 (GPU-5a0d...)"; empty for the CPU, or without an id
};

/// Throws Error(unsupported) if the GPU is wanted, or auto finds one, and this LibTorch cannot use it; auto chooses the
/// CPU if it finds no GPU or LibTorch was built without CUDA.
/// With several ranks on this host, each uses the GPU of its own number. A rank that sees fewer GPUs than there are
/// ranks assumes that each rank was given its own (as by srun --gpus-per-task) and counts within those; gpu_of_two()
/// checks that.
DeviceChoice choose_device(DeviceKind wanted, const GpuFacts& facts, int local_rank = 0, int local_world_size = 1);
/// Uses the facts of this machine, which it collects only if they matter. Makes the chosen GPU LibTorch's current one,
/// so that "cuda" means it.
DeviceChoice choose_device(DeviceKind wanted, int local_rank = 0, int local_world_size = 1);

/// `gpus`: each rank's DeviceChoice::gpu. If two ranks share a GPU: why the ranks cannot continue; else nothing.
std::optional<std::string> gpu_of_two(const std::vector<std::string>& gpus);

}  // namespace holdfast
