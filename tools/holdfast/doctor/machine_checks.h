// What the machine offers a run: time, memory, processors, GPUs. The checks are functions of what was found.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "doctor/check.h"
#include "holdfast/runtime/platform/gpu_driver.h"
#include "holdfast/runtime/platform/machine_limits.h"
#include "holdfast/runtime/platform/profile.h"

namespace holdfast::tools {

/// What is left of the platform's limit.
Check time_check(const Profile& profile, std::optional<std::chrono::seconds> age);

/// The cloud whose preemption notices a run here should ask for; empty if none is known to give them to users, who
/// cannot reach those of a hosted notebook's machine.
std::optional<std::string> notices_to_set(const Platform& platform);

/// Whether the cloud announces that it takes this machine back. Only called where notices_to_set() names one.
Check notices_check(const Platform& platform, const std::string& cloud);

/// Whether OMP_NUM_THREADS asks for more threads than processors' time was granted. Without it, programs adapt.
Check processor_check(const Machine& machine, const MachineLimits& limits,
                      const std::optional<std::string>& omp_threads);

Check memory_check(const MachineLimits& limits);

/// A LibTorch that was found without loading it.
struct Libtorch {
  std::string folder;         // that holds libtorch_cpu.so
  bool has_cuda = false;      // libtorch_cuda.so is there
  std::string architectures;  // the -gencode flags in it; empty: unknown
};

/// In LibTorch_ROOT, the active virtual environment, the first Python of PATH, or where tools/setup installs one.
std::optional<Libtorch> find_libtorch(const Surroundings& around);

/// One for each GPU, or one that says that there is none.
Checks gpu_checks(const std::vector<Gpu>& gpus, const std::string& driver_cuda,
                  const std::optional<Libtorch>& libtorch);

}  // namespace holdfast::tools
