// GPUs as NVIDIA's driver library reports them. It is loaded at run time, so this needs no CUDA toolkit and also sees
// the GPU that a LibTorch without CUDA cannot.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

struct Gpu {
  std::string name = {};
  int major = 0;  // compute capability
  int minor = 0;
  std::string id = {};  // unique among the GPUs, and their parts, of all hosts; empty: unknown
};

/// The newest CUDA that the driver supports, "12.4"; empty without a driver.
std::string driver_cuda_version();

/// In the driver's order; CUDA_VISIBLE_DEVICES applies. Initialises the driver: do not call it before a fork whose
/// child uses CUDA.
std::vector<Gpu> list_gpus();

/// Whether kernels built with these -gencode flags run on a GPU: machine code runs on the same major number and the
/// same or a higher minor one, PTX on its own capability or a higher one. True if the flags are unknown. Source: CUDA
/// C++ Programming Guide, "Application compatibility".
bool has_kernels_for(std::string_view gencode_flags, const Gpu& gpu);

}  // namespace holdfast
