#include "device/reproducibility.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <torch/version.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "device/device.h"

namespace holdfast {
namespace {

using nlohmann::json;

// The build settings that LibTorch prints: "…, COMMIT_SHA=70d99e99, CUDA_VERSION=13.0, …".
std::string build_setting(std::string_view settings, std::string_view name) {
  const auto key = fmt::format(" {}=", name);
  const auto at = settings.find(key);
  if (at == std::string_view::npos) return {};
  const auto value = settings.substr(at + key.size());
  return std::string(value.substr(0, value.find(',')));
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const auto colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string float32_precision(at::Float32Backend backend, at::Float32Op op) {
  return at::precision2str(at::globalContext().float32Precision(backend, op));
}

constexpr std::string_view kRanks = "ranks";

// What is compared, in the order of the report: its JSON pointer, and its name for users.
constexpr std::pair<std::string_view, std::string_view> kNames[] = {
    {"/world_size", kRanks},
    {"/device/kind", "device"},
    {"/device/name", "GPU"},
    {"/device/compute_capability", "compute capability"},
    {"/threads", "threads"},
    {"/libtorch", "LibTorch"},
    {"/libtorch_git", "LibTorch revision"},
    {"/cpu_capability", "CPU capability"},
    {"/cpu", "CPU"},
    {"/mkl", "MKL"},
    {"/onednn", "oneDNN"},
    {"/device/cuda", "CUDA"},
    {"/device/cudnn", "cuDNN"},
    {"/deterministic/algorithms", "deterministic algorithms"},
    {"/deterministic/cudnn", "deterministic cuDNN"},
    {"/deterministic/mkldnn", "deterministic oneDNN"},
    {"/deterministic/cudnn_benchmark", "cuDNN benchmark"},
    {"/deterministic/cublas_workspace", "CUBLAS_WORKSPACE_CONFIG"},
    {"/float32/cublas", "float32 precision of cuBLAS"},
    {"/float32/cudnn", "float32 precision of cuDNN"},
    {"/float32/mkldnn", "float32 precision of oneDNN"},
};

std::string in_words(const json& value) {
  if (value.is_boolean()) return value.get<bool>() ? "on" : "off";
  if (value.is_string()) return value.get<std::string>().empty() ? "unset" : value.get<std::string>();
  return value.dump();
}

template <class Value, class Set>
void if_saved(const json& saved, const char* pointer, Set set) {
  const json::json_pointer at(pointer);
  if (!saved.contains(at)) return;
  try {
    set(saved.at(at).get<Value>());
  } catch (const std::exception&) {
    // A value that this LibTorch does not accept stays a difference, which differences() reports.
  }
}

}  // namespace

json capture_environment(const c10::Device& device, int world_size) {
  const auto& context = at::globalContext();
  static const std::string cpu = cpu_model();
  const char* workspace = std::getenv("CUBLAS_WORKSPACE_CONFIG");
  json device_facts = {{"kind", device.is_cuda() ? "cuda" : "cpu"}};
  if (device.is_cuda()) {
    // Collected once, because it loads the driver's library, and every version needs the result.
    static const auto facts = find_gpus();
    const auto index = static_cast<std::size_t>(device.has_index() ? device.index() : 0);
    if (index < facts.gpus.size()) {
      const auto& gpu = facts.gpus[index];
      device_facts["name"] = gpu.name;
      device_facts["compute_capability"] = fmt::format("{}.{}", gpu.major, gpu.minor);
    }
    device_facts["driver_cuda"] = facts.driver_cuda;
    device_facts["cuda"] = facts.libtorch_cuda;
    const auto& hooks = at::detail::getCUDAHooks();
    if (hooks.compiledWithCuDNN()) device_facts["cudnn"] = std::to_string(hooks.versionRuntimeCuDNN());
  }
  return {{"libtorch", TORCH_VERSION},
          {"libtorch_git", build_setting(at::show_config(), "COMMIT_SHA")},
          {"cpu", cpu},
          {"cpu_capability", at::get_cpu_capability()},
          {"mkl", first_line(at::get_mkl_version())},
          {"onednn", first_line(at::get_mkldnn_version())},
          {"threads", at::get_num_threads()},
          {"interop_threads", at::get_num_interop_threads()},
          {"world_size", world_size},
          {"deterministic",
           {{"algorithms", context.deterministicAlgorithms()},
            {"warn_only", context.deterministicAlgorithmsWarnOnly()},
            {"cudnn", context.deterministicCuDNN()},
            {"mkldnn", context.deterministicMkldnn()},
            {"cudnn_benchmark", context.benchmarkCuDNN()},
            {"cublas_workspace", workspace ? workspace : ""}}},
          {"float32",
           {{"cublas", float32_precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL)},
            {"cudnn", float32_precision(at::Float32Backend::CUDA, at::Float32Op::CONV)},
            {"mkldnn", float32_precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL)}}},
          {"device", device_facts}};
}

void restore_environment(const json& saved, bool keep_threads) {
  auto& context = at::globalContext();
  if (!keep_threads) {
    if_saved<int>(saved, "/threads", [](int threads) {
      if (threads > 0 && threads != at::get_num_threads()) at::set_num_threads(threads);
    });
  }
  bool warn_only = false;
  if_saved<bool>(saved, "/deterministic/warn_only", [&](bool value) { warn_only = value; });
  if_saved<bool>(saved, "/deterministic/algorithms",
                 [&](bool value) { context.setDeterministicAlgorithms(value, warn_only); });
  if_saved<bool>(saved, "/deterministic/cudnn", [&](bool value) { context.setDeterministicCuDNN(value); });
  if_saved<bool>(saved, "/deterministic/mkldnn", [&](bool value) { context.setDeterministicMkldnn(value); });
  if_saved<bool>(saved, "/deterministic/cudnn_benchmark", [&](bool value) { context.setBenchmarkCuDNN(value); });
  const auto set_precision = [&](at::Float32Backend backend, at::Float32Op op) {
    return [&context, backend, op](const std::string& precision) {
      if (precision != float32_precision(backend, op)) {
        context.setFloat32Precision(backend, op, at::str2precision(precision));
      }
    };
  };
  if_saved<std::string>(saved, "/float32/cublas", set_precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL));
  if_saved<std::string>(saved, "/float32/cudnn", set_precision(at::Float32Backend::CUDA, at::Float32Op::CONV));
  if_saved<std::string>(saved, "/float32/mkldnn", set_precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL));
}

std::vector<std::string> differences(const json& saved, const json& present) {
  std::vector<std::string> found;
  for (const auto& [pointer, name] : kNames) {
    const json::json_pointer at{std::string(pointer)};
    if (!saved.contains(at) || !present.contains(at)) continue;
    const auto before = in_words(saved.at(at)), now = in_words(present.at(at));
    if (before == now) continue;
    found.push_back(name == kRanks ? fmt::format("{} {} → {}", before, name, now)
                                   : fmt::format("{} {} → {}", name, before, now));
  }
  return found;
}

void make_deterministic() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicCuDNN(true);
  context.setDeterministicMkldnn(true);
  context.setBenchmarkCuDNN(false);
}

void seed_all(std::uint64_t seed) { at::manual_seed(seed); }

}  // namespace holdfast
