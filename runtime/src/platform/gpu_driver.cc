#include "platform/gpu_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

namespace holdfast {
namespace {

// The part of the driver's stable C interface that lists GPUs. https://docs.nvidia.com/cuda/cuda-driver-api
class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {}  // never closed: LibTorch uses it too

  bool start() {
    const auto init = find<int(unsigned)>("cuInit");
    return init && init(0) == 0;
  }
  std::string cuda_version() {
    const auto get = find<int(int*)>("cuDriverGetVersion");
    int version = 0;
    if (!get || get(&version) != 0 || version == 0) return {};
    return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
  }
  std::vector<Gpu> gpus() {
    const auto count = find<int(int*)>("cuDeviceGetCount");
    const auto get = find<int(int*, int)>("cuDeviceGet");
    const auto name = find<int(char*, int, int)>("cuDeviceGetName");
    const auto attribute = find<int(int*, int, int)>("cuDeviceGetAttribute");
    // The second version distinguishes the parts of a split GPU (MIG).
    auto identify = find<int(unsigned char*, int)>("cuDeviceGetUuid_v2");
    if (!identify) identify = find<int(unsigned char*, int)>("cuDeviceGetUuid");
    std::vector<Gpu> found;
    int total = 0;
    if (!count || !get || !name || !attribute || count(&total) != 0) return found;
    for (int i = 0; i < total; ++i) {
      constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;
      int device = 0;
      std::array<char, 256> text{};
      Gpu gpu;
      if (get(&device, i) != 0 || name(text.data(), static_cast<int>(text.size()) - 1, device) != 0) return found;
      attribute(&gpu.major, kCapabilityMajor, device);
      attribute(&gpu.minor, kCapabilityMinor, device);
      gpu.name = text.data();
      if (std::array<unsigned char, 16> id{}; identify && identify(id.data(), device) == 0) {
        const std::string hex = fmt::format("{:02x}", fmt::join(id, ""));
        // In the format of nvidia-smi -L.
        gpu.id = fmt::format("GPU-{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                             hex.substr(16, 4), hex.substr(20));
      }
      found.push_back(gpu);
    }
    return found;
  }

 private:
  template <class Function>
  Function* find(const char* symbol) {
    return library_ ? reinterpret_cast<Function*>(dlsym(library_, symbol)) : nullptr;
  }

  void* library_;
};

}  // namespace

std::string driver_cuda_version() { return Driver().cuda_version(); }

std::vector<Gpu> list_gpus() {
  Driver driver;
  return driver.start() ? driver.gpus() : std::vector<Gpu>();
}

}  // namespace holdfast
