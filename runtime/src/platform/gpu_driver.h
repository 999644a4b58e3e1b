// GPUs as NVIDIA's driver library reports them. It is loaded at run time, so this needs no CUDA toolkit and also sees
// the GPU that a LibTorch without CUDA cannot.
#pragma once

#include <string>
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

}  // namespace holdfast
