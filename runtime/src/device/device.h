// Which device a run computes on: the choice of --holdfast.device against what is there. A GPU that this LibTorch
// cannot use is refused with a remedy, rather than found out by the first kernel, or by a day on the CPU.
//
// Facts about GPUs come from NVIDIA's driver library, loaded at run time, so this needs no CUDA toolkit and also sees
// the GPU that a LibTorch without CUDA cannot.
#pragma once

#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

struct Gpu {
  std::string name = {};
  int major = 0;  // compute capability
  int minor = 0;
  std::string id = {};  // no other GPU, or part of one, of any host has it; empty: unknown
};

struct GpuFacts {
  std::vector<Gpu> gpus = {};               // as the driver counts them: CUDA_VISIBLE_DEVICES applies
  std::string driver_cuda = {};             // the newest CUDA that the driver serves, "12.4"; empty: no driver
  bool libtorch_has_cuda = false;           // this LibTorch was built with CUDA
  bool libtorch_sees_gpu = false;           // … and finds a GPU that it can talk to
  std::string libtorch_cuda = {};           // "13.0"
  std::string libtorch_architectures = {};  // the -gencode flags it was built with; empty: unknown
};

/// Asks driver and LibTorch; initialises the driver, so not before a fork whose child uses CUDA.
GpuFacts find_gpus();

/// Whether kernels built with these -gencode flags run on a GPU: machine code runs on the same major number and the
/// same or a higher minor one, PTX on anything from its own on. True where the flags are unknown. Source: CUDA C++
/// Programming Guide, "Application compatibility".
bool has_kernels_for(std::string_view gencode_flags, const Gpu& gpu);

struct DeviceChoice {
  c10::Device device = c10::kCPU;
  std::string note = {};  // a sentence worth saying: why the CPU although a GPU is here; else empty
  std::string gpu = {};   // its name and id, "NVIDIA H200 (GPU-5a0d...)"; empty for the CPU, or where it has no id
};

/// `wanted`: "cpu", "cuda" or "auto". Throws Error(unsupported) where the GPU is wanted, or auto finds one, and this
/// LibTorch cannot use it; auto takes the CPU where there is no GPU or LibTorch was built without CUDA.
/// Of several ranks on this host each takes the GPU of its own number. Where a rank sees fewer GPUs than there are
/// ranks, it takes it that each was given its own (as by srun --gpus-per-task) and counts within those; gpu_of_two()
/// tells whether that is so.
DeviceChoice choose_device(std::string_view wanted, const GpuFacts& facts, int local_rank = 0,
                           int local_world_size = 1);
/// With the facts of this machine, which are asked for only where they matter. Makes a GPU LibTorch's current one, so
/// that "cuda" means it.
DeviceChoice choose_device(std::string_view wanted, int local_rank = 0, int local_world_size = 1);

/// `gpus`: of each rank the DeviceChoice's. Why the ranks cannot go on where two of them share a GPU; else nothing.
std::optional<std::string> gpu_of_two(const std::vector<std::string>& gpus);

}  // namespace holdfast
