#include "platform/gpu_load.h"

#include <dlfcn.h>

#include <array>

namespace holdfast {
namespace {

// A shared library's C function, null if it has none. Libraries stay loaded.
template <class Function>
Function* find(void* library, const char* symbol) {
  return library != nullptr ? reinterpret_cast<Function*>(::dlsym(library, symbol)) : nullptr;
}

// Sources: NVIDIA, "NVML API Reference Guide" and "CUDA Driver API": the functions and structures of those names.
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlUtilisation {
  unsigned gpu, memory;
};

}  // namespace

std::optional<GpuLoad> gpu_load(int gpu) {
  static void* const driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  static void* const management = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  // The two libraries count devices differently; the place on the bus is the same.
  const auto get = find<int(int*, int)>(driver, "cuDeviceGet");
  const auto bus_id = find<int(char*, int, int)>(driver, "cuDeviceGetPCIBusId");
  const auto init = find<int()>(management, "nvmlInit_v2");
  const auto handle_of = find<int(const char*, void**)>(management, "nvmlDeviceGetHandleByPciBusId_v2");
  const auto memory_of = find<int(void*, NvmlMemory*)>(management, "nvmlDeviceGetMemoryInfo");
  const auto utilisation_of = find<int(void*, NvmlUtilisation*)>(management, "nvmlDeviceGetUtilizationRates");
  if (!get || !bus_id || !init || !handle_of || !memory_of || !utilisation_of) return std::nullopt;
  int number = 0;
  std::array<char, 64> bus{};
  void* handle = nullptr;
  NvmlMemory memory{};
  NvmlUtilisation utilisation{};
  if (get(&number, gpu) != 0 || bus_id(bus.data(), static_cast<int>(bus.size()) - 1, number) != 0 || init() != 0 ||
      handle_of(bus.data(), &handle) != 0 || memory_of(handle, &memory) != 0) {
    return std::nullopt;
  }
  (void)utilisation_of(handle, &utilisation);  // some GPUs do not report it
  return GpuLoad{memory.total, memory.free, utilisation.gpu};
}

}  // namespace holdfast
