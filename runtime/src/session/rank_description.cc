#include "session/rank_description.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>
#include <unistd.h>

#include <fstream>

#include "device/device.h"
#include "holdfast/storage/text/units.h"
#include "platform/gpu_load.h"
#include "process/host_name.h"

namespace holdfast {
namespace {

// The bytes of a line such as "MemAvailable:   16286984 kB" in a file of /proc; 0 if it is missing.
std::uint64_t bytes_given_in(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":")) return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  }
  return 0;
}

}  // namespace

std::string describe_rank(const Group& group, const std::string& precision, const std::string& version) {
  std::string text = fmt::format("rank {} of {}, local {}, on {}, pid {}\n", group.rank(), group.world_size(),
                                 group.local_rank(), host_name(), ::getpid());
  const c10::Device device = group.device();
  if (device.is_cuda()) {
    const GpuFacts facts = find_gpus();
    const auto index = static_cast<std::size_t>(device.has_index() ? device.index() : 0);
    text += fmt::format("  device     {}", device.str());
    if (index < facts.gpus.size()) {
      const Gpu& gpu = facts.gpus[index];
      text += fmt::format(", {}, compute capability {}.{}", gpu.name, gpu.major, gpu.minor);
    }
    text += fmt::format(", CUDA {} (driver {})\n", facts.libtorch_cuda, facts.driver_cuda);
    if (const auto load = gpu_load(static_cast<int>(index))) {
      text += fmt::format("  GPU        {} in use, {} free, {} % busy\n",
                          storage::format_bytes(load->memory_total - load->memory_free),
                          storage::format_bytes(load->memory_free), load->utilisation);
    }
  } else {
    text += fmt::format("  device     {}\n", device.str());
  }
  text += fmt::format("  host       {} in use by this process, {} available\n",
                      storage::format_bytes(bytes_given_in("/proc/self/status", "VmRSS")),
                      storage::format_bytes(bytes_given_in("/proc/meminfo", "MemAvailable")));
  text += fmt::format("  computes   in {}, {} threads\n", precision, at::get_num_threads());
  text += fmt::format("  versions   Holdfast {}, LibTorch {}\n", version, TORCH_VERSION);
  return text;
}

}  // namespace holdfast
