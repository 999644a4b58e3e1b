#include "device/device.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>

#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw Error(storage::StatusCode::unsupported, sentence); }

}  // namespace

GpuFacts find_gpus() {
  GpuFacts facts;
  facts.driver_cuda = driver_cuda_version();
  facts.gpus = list_gpus();
  const auto& hooks = at::detail::getCUDAHooks();
  facts.libtorch_has_cuda = hooks.hasCUDART();
  facts.libtorch_sees_gpu = hooks.hasCUDA();
  if (facts.libtorch_has_cuda) {
    const auto version = hooks.versionCUDART();
    facts.libtorch_cuda = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
    // showConfig() throws without a suitable driver; kernels do not matter then.
    if (facts.libtorch_sees_gpu) facts.libtorch_architectures = hooks.showConfig();
  }
  return facts;
}

DeviceChoice choose_device(DeviceKind wanted, const GpuFacts& facts, int local_rank, int local_world_size) {
  if (wanted == DeviceKind::cpu) return {};
  const bool is_auto = wanted == DeviceKind::automatic;
  if (facts.gpus.empty()) {
    if (is_auto) return {};
    refuse(fmt::format("no GPU was found{}: run with --holdfast.device cpu",
                       facts.driver_cuda.empty() ? " (NVIDIA's driver library libcuda.so.1 is not installed)" : ""));
  }
  const std::size_t index = static_cast<std::size_t>(local_rank) % facts.gpus.size();
  const Gpu& gpu = facts.gpus[index];
  if (!facts.libtorch_has_cuda) {
    const auto sentence = fmt::format("the {} cannot be used because this LibTorch was built without CUDA", gpu.name);
    if (is_auto) return {c10::kCPU, sentence};
    refuse(sentence + ": build with one that has it, or run with --holdfast.device cpu");
  }
  if (!facts.libtorch_sees_gpu) {
    refuse(
        fmt::format("LibTorch cannot use the {}: it was built for CUDA {} and the driver serves CUDA {}; install a "
                    "newer driver or a LibTorch for that CUDA, or run with --holdfast.device cpu",
                    gpu.name, facts.libtorch_cuda, facts.driver_cuda));
  }
  if (!has_kernels_for(facts.libtorch_architectures, gpu)) {
    refuse(
        fmt::format("this LibTorch has no kernels for the {0} (sm_{1}{2}): build with a LibTorch that has (for an "
                    "older GPU, a wheel for an older CUDA version; torch.cuda.get_arch_list() must name sm_{1}{2}), "
                    "or run with --holdfast.device cpu",
                    gpu.name, gpu.major, gpu.minor));
  }
  // Without an id it is unknown whether each rank has a GPU of its own.
  if (gpu.id.empty() && local_world_size > static_cast<int>(facts.gpus.size())) {
    refuse(
        fmt::format("{} ranks on this host and {} GPU{}: start as many ranks as there are GPUs, or run with "
                    "--holdfast.device cpu",
                    local_world_size, facts.gpus.size(), facts.gpus.size() == 1 ? "" : "s"));
  }
  return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)), "",
          gpu.id.empty() ? "" : fmt::format("{} ({})", gpu.name, gpu.id)};
}

std::optional<std::string> gpu_of_two(const std::vector<std::string>& gpus) {
  for (std::size_t rank = 0; rank < gpus.size(); ++rank) {
    const auto first = std::find(gpus.begin(), gpus.end(), gpus[rank]) - gpus.begin();
    if (gpus[rank].empty() || first == static_cast<std::ptrdiff_t>(rank)) continue;
    return fmt::format(
        "ranks {} and {} have the same GPU, {}: start as many ranks as there are GPUs on each host, or "
        "give each its own (LOCAL_RANK, or srun --gpus-per-task=1), or run with --holdfast.device cpu",
        first, rank, gpus[rank]);
  }
  return std::nullopt;
}

DeviceChoice choose_device(DeviceKind wanted, int local_rank, int local_world_size) {
  if (wanted == DeviceKind::cpu) return {};
  const DeviceChoice choice = choose_device(wanted, find_gpus(), local_rank, local_world_size);
  if (choice.device.is_cuda()) c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(choice.device);
  return choice;
}

}  // namespace holdfast
