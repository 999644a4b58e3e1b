#include "holdfast/runtime/platform/gpu_driver.h"

#include <dlfcn.h>

#include <array>
#include <regex>

#include "holdfast/storage/text/text.h"

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
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
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
        gpu.id = "GPU";  // in the format of nvidia-smi -L
        for (std::size_t byte = 0; byte < id.size(); ++byte) {
          if (byte == 0 || byte == 4 || byte == 6 || byte == 8 || byte == 10) gpu.id += '-';
          storage::append_hex(gpu.id, id[byte], 2);
        }
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

bool has_kernels_for(std::string_view gencode_flags, const Gpu& gpu) {
  static const std::regex kCode("code=(sm|compute)_([0-9]+)([0-9])([af]?)");
  const std::string flags(gencode_flags);
  bool known = false;
  for (std::sregex_iterator match(flags.begin(), flags.end(), kCode), end; match != end; ++match) {
    known = true;
    const int major = std::stoi((*match)[2]), minor = std::stoi((*match)[3]);
    const std::string suffix = (*match)[4];
    if (suffix == "a") {  // architecture-specific: that one alone
      if (gpu.major == major && gpu.minor == minor) return true;
    } else if ((*match)[1] == "sm" || suffix == "f") {
      if (gpu.major == major && gpu.minor >= minor) return true;
    } else if (gpu.major > major || (gpu.major == major && gpu.minor >= minor)) {
      return true;
    }
  }
  return !known;
}

}  // namespace holdfast
