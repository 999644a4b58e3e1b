#include "doctor/machine_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <fstream>
#include <functional>
#include <sstream>

#include "holdfast/storage/stores/file/file_operations.h"
#include "terminal/phrases.h"

namespace holdfast::tools {

using storage::format_duration;

namespace {

constexpr std::chrono::minutes kLittleTime{20};
constexpr std::uint64_t kLittleMemory = std::uint64_t{2} << 30;
constexpr std::string_view kFlags = "-gencode;arch=";

// LibTorch writes the flags that it was built with into its CUDA library, for torch.cuda.get_arch_list().
std::string architectures_in(const storage::Path& library) {
  std::ifstream file(library.string(), std::ios::binary);
  std::string block(std::size_t{4} << 20, '\0'), kept;
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0) {
    const std::string text = kept + block.substr(0, static_cast<std::size_t>(file.gcount()));
    if (const auto at = text.find(kFlags); at != std::string::npos) {
      std::string flags = text.substr(at);
      if (flags.find('\0') == std::string::npos) {  // they go on in the next block
        flags.resize(flags.size() + 4096);
        file.read(flags.data() + flags.size() - 4096, 4096);
      }
      return flags.substr(0, flags.find('\0'));
    }
    kept = text.substr(text.size() - std::min(text.size(), kFlags.size()));
  }
  return {};
}

std::vector<storage::Path> entries_of(const storage::Path& folder, const std::string& prefix) {
  std::vector<storage::Path> found;
  boost::system::error_code error;
  for (boost::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename().string().starts_with(prefix)) found.push_back(entry->path());
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

/// What CMake tries (FindLibTorch.cmake): a folder that was named, the active virtual environment, the Python that a
/// shell would start (Colab's and Kaggle's have a LibTorch), and those that tools/setup installed.
std::vector<storage::Path> roots_of_libtorch(const Surroundings& around) {
  std::vector<storage::Path> roots;
  for (const char* variable : {"LibTorch_ROOT", "VIRTUAL_ENV"}) {
    if (const auto root = around.variable(variable); root && !root->empty()) roots.emplace_back(*root);
  }
  std::istringstream folders(around.variable("PATH").value_or(""));
  for (std::string folder; std::getline(folders, folder, ':');) {
    boost::system::error_code error;
    if (!folder.starts_with('/') || !boost::filesystem::exists(storage::Path(folder) / "python3", error)) continue;
    roots.push_back(storage::Path(folder).parent_path());
    break;
  }
  if (const auto home = around.variable("HOME")) {
    for (const auto& root : entries_of(storage::Path(*home) / ".cache" / "holdfast", "libtorch-"))
      roots.push_back(root);
  }
  return roots;
}

std::vector<storage::Path> libtorch_folders(const Surroundings& around) {
  std::vector<storage::Path> folders;
  for (const storage::Path& root : roots_of_libtorch(around)) {
    folders.push_back(root / "lib");
    for (const storage::Path& python : entries_of(root / "lib", "python3")) {
      for (const char* packages : {"site-packages", "dist-packages"})
        folders.push_back(python / packages / "torch" / "lib");
    }
  }
  return folders;
}

}  // namespace

Check time_check(const Profile& profile, std::optional<std::chrono::seconds> age) {
  const std::string runs =
      age ? "the machine has been running for " + format_duration(*age) : "the machine's age is unknown";
  if (!profile.limit) return {Grade::good, "time", runs + "; no limit is known", ""};
  const std::string limit = fmt::format("{}'s limit is {}", profile.title, format_duration(*profile.limit));
  if (!age) return {Grade::note, "time", runs + "; " + limit, ""};
  const auto left = *profile.limit - *age;
  if (left <= kLittleTime) {
    return {Grade::note, "time",
            fmt::format("{}; {}, so {} left", runs, limit,
                        left.count() <= 0 ? "no time is" : format_duration(left) + " are"),
            "start a new session before a long run"};
  }
  return {Grade::good, "time", fmt::format("{}; {}, so {} are left", runs, limit, format_duration(left)), ""};
}

std::optional<std::string> notices_to_set(const Platform& platform) {
  for (const char* place : {"ec2", "gce", "azure", "slurm", "kubernetes", "container"}) {
    if (platform.place.name == place && !platform.cloud.name.empty()) return platform.cloud.name;
  }
  return std::nullopt;
}

Check notices_check(const Platform& platform, const std::string& cloud) {
  return {Grade::note, "notices",
          fmt::format("{}: a spot machine is announced to be taken back", platform.cloud.reason),
          fmt::format("on a spot machine, let programs stop in time: --holdfast.notices {}", cloud)};
}

Check processor_check(const Machine& machine, const MachineLimits& limits,
                      const std::optional<std::string>& omp_threads) {
  const auto threads = threads_to_set(machine, limits);
  if (!threads) return {Grade::good, "processors", limits.cpus_from, ""};
  const std::string what = fmt::format("{} of {} are granted ({})", format_number(limits.cpus),
                                       plural(machine.cpus, "processor"), limits.cpus_from);
  if (!omp_threads) {
    return {Grade::good, "processors", what + fmt::format("; programs use {}", plural(*threads, "thread")), ""};
  }
  const auto asked = std::strtol(omp_threads->c_str(), nullptr, 10);
  if (asked <= *threads) return {Grade::good, "processors", what + ", and OMP_NUM_THREADS=" + *omp_threads, ""};
  return {Grade::note, "processors", what + ", but OMP_NUM_THREADS=" + *omp_threads,
          fmt::format("unset OMP_NUM_THREADS, or set it to {}", *threads)};
}

Check memory_check(const MachineLimits& limits) {
  const std::string what = fmt::format("{} ({})", format_bytes(limits.memory), limits.memory_from);
  if (limits.memory >= kLittleMemory) return {Grade::good, "memory", what, ""};
  return {Grade::note, "memory", what + ", and LibTorch with its data needs about 2 GiB",
          "give the container or job more memory"};
}

std::optional<Libtorch> find_libtorch(const Surroundings& around) {
  boost::system::error_code error;
  for (const storage::Path& folder : libtorch_folders(around)) {
    if (!boost::filesystem::exists(folder / "libtorch_cpu.so", error)) continue;
    Libtorch found{folder.string(), boost::filesystem::exists(folder / "libtorch_cuda.so", error), ""};
    if (found.has_cuda) found.architectures = architectures_in(folder / "libtorch_cuda.so");
    return found;
  }
  return std::nullopt;
}

Checks gpu_checks(const std::vector<Gpu>& gpus, const std::string& driver_cuda,
                  const std::optional<Libtorch>& libtorch) {
  if (gpus.empty()) {
    return {{Grade::good, "GPUs",
             driver_cuda.empty() ? "none; NVIDIA's driver is not installed"
                                 : "none, although NVIDIA's driver for CUDA " + driver_cuda + " is installed",
             ""}};
  }
  Checks checks;
  for (std::size_t index = 0; index < gpus.size(); ++index) {
    const Gpu& gpu = gpus[index];
    Check check{Grade::good, fmt::format("GPU {}", index),
                fmt::format("{}, sm_{}{}, driver for CUDA {}", gpu.name, gpu.major, gpu.minor, driver_cuda), ""};
    if (!libtorch) {
      check.what += "; no LibTorch was found to compare with (set LibTorch_ROOT to its folder)";
    } else if (!libtorch->has_cuda) {
      check = {Grade::note, check.area, check.what + "; the LibTorch in " + libtorch->folder + " has no CUDA",
               "install a LibTorch with CUDA, or training runs on the CPU"};
    } else if (!has_kernels_for(libtorch->architectures, gpu)) {
      check = {Grade::bad, check.area, check.what + "; the LibTorch in " + libtorch->folder + " has no kernels for it",
               fmt::format("install a LibTorch whose torch.cuda.get_arch_list() has sm_{}{}, or run with "
                           "--holdfast.device cpu",
                           gpu.major, gpu.minor)};
    } else {
      check.what += "; the LibTorch in " + libtorch->folder + " has kernels for it";
    }
    checks.push_back(std::move(check));
  }
  return checks;
}

}  // namespace holdfast::tools
