// The environment that a bit-exact resume needs in addition to the saved state: the same LibTorch, kernels, threads,
// device and flags. It is saved with each version; a resume sets what can be set and names what differs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace holdfast {

/// libtorch, libtorch_git, cpu, cpu_capability, mkl, onednn, threads, interop_threads, world_size; deterministic
/// algorithms, cudnn and mkldnn flags, float32 precision; device kind, and on a GPU its name, compute capability and
/// the versions of driver, CUDA and cuDNN.
nlohmann::json capture_environment(const c10::Device& device, int world_size = 1);

/// Sets the saved intra-op thread count (unless `keep_threads`: the user chose one), and the saved deterministic and
/// float32 precision flags. Flags that this LibTorch does not know are left alone; differences() then names them.
void restore_environment(const nlohmann::json& saved, bool keep_threads);

/// One short phrase for each thing that keeps a resume from being bit-exact: "threads 2 → 4", "LibTorch 2.11.0
/// → 2.12.0". Empty: nothing does. A fact that only one of them has does not count.
std::vector<std::string> differences(const nlohmann::json& saved, const nlohmann::json& present);

/// From now on LibTorch uses only kernels that give the same bits each time, and throws if an operation has none. For a
/// GPU, call it before CUDA starts, when cuBLAS reads CUBLAS_WORKSPACE_CONFIG. Source: PyTorch, "Reproducibility".
void make_deterministic();

/// Seeds the default generators of the CPU and of every GPU.
void seed_all(std::uint64_t seed);

}  // namespace holdfast
