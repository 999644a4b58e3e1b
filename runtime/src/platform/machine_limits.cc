#include "holdfast/runtime/platform/machine_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

// In version 1 a group without a limit shows the largest multiple of the page size below 2^63.
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;  // "max", "-1"
  return value;
}

bool has_word(std::string_view list, std::string_view word) {
  for (std::size_t begin = 0; begin <= list.size();) {
    const auto end = std::min(list.find(',', begin), list.size());
    if (list.substr(begin, end - begin) == word) return true;
    begin = end + 1;
  }
  return false;
}

std::string last_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The folders of the process's group and of its ancestors. `controller`: "cpu" or "memory" of version 1; empty:
// version 2.
std::vector<std::string> group_folders(const Surroundings& around, std::string_view controller) {
  std::string group;
  bool found = false;
  std::istringstream lines((around.read ? around.read("/proc/self/cgroup") : std::nullopt).value_or(""));
  for (std::string line; std::getline(lines, line);) {  // "4:cpu,cpuacct:/docker/7f", "0::/user.slice"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    if (controller.empty() ? !controllers.empty() : !has_word(controllers, controller)) continue;
    group = line.substr(second + 1);
    found = true;
  }
  const Mount* mount = nullptr;
  for (const Mount& one : around.mounts) {
    const bool fits =
        controller.empty() ? one.type == "cgroup2" : one.type == "cgroup" && has_word(last_name(one.point), controller);
    if (fits) mount = &one;
  }
  if (!found || mount == nullptr) return {};
  // In a container only its own part of the hierarchy may be mounted, and the group's path may count from outside it.
  if (mount->root != "/" && group.starts_with(mount->root)) group.erase(0, mount->root.size());
  if (group.find("..") != std::string::npos) group.clear();
  std::vector<std::string> folders;
  for (std::string folder = mount->point + (group == "/" ? "" : group);; folder.erase(folder.rfind('/'))) {
    folders.push_back(folder);
    if (folder.size() <= mount->point.size()) return folders;
  }
}

// The two numbers of cpu.max, or those of version 1's two files.
std::optional<std::pair<std::uint64_t, std::uint64_t>> quota_and_period(const Surroundings& around,
                                                                        const std::string& folder, bool version2) {
  const auto text = [&](const char* file) { return around.read(folder + "/" + file).value_or(""); };
  if (!version2) {
    const auto quota = number(text("cpu.cfs_quota_us")), period = number(text("cpu.cfs_period_us"));
    return quota && period ? std::optional(std::pair(*quota, *period)) : std::nullopt;
  }
  const std::string line = text("cpu.max");
  const auto blank = line.find(' ');
  if (blank == std::string::npos) return std::nullopt;
  const auto quota = number(line), period = number(std::string_view(line).substr(blank + 1));
  return quota && period ? std::optional(std::pair(*quota, *period)) : std::nullopt;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // Fails on machines with more than 1024 processors.
  machine.cpus = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask)
                                                               : static_cast<int>(std::thread::hardware_concurrency());
  machine.cpus = std::max(1, machine.cpus);
  machine.memory = static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES))) *
                   static_cast<std::uint64_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return machine;
}

MachineLimits limits_of(const Machine& machine, const Surroundings& around) {
  MachineLimits limits{static_cast<double>(machine.cpus),
                       std::to_string(machine.cpus) + (machine.cpus == 1 ? " processor" : " processors"),
                       machine.memory, "the machine's memory"};
  for (const bool version2 : {true, false}) {
    for (const std::string& folder : group_folders(around, version2 ? "" : "cpu")) {
      const auto given = quota_and_period(around, folder, version2);
      if (!given || given->second == 0) continue;
      const double cpus = static_cast<double>(given->first) / static_cast<double>(given->second);
      if (cpus >= limits.cpus) continue;
      limits.cpus = cpus;
      limits.cpus_from = std::string(version2 ? "cpu.max" : "cpu.cfs_quota_us") + " of " + folder + ": " +
                         std::to_string(given->first) + " of " + std::to_string(given->second) + " µs";
    }
    const char* const file = version2 ? "memory.max" : "memory.limit_in_bytes";
    for (const std::string& folder : group_folders(around, version2 ? "" : "memory")) {
      const auto bytes = number(around.read(folder + "/" + file).value_or(""));
      if (!bytes || *bytes >= kNoLimit || *bytes >= limits.memory) continue;
      limits.memory = *bytes;
      limits.memory_from = std::string(file) + " of " + folder;
    }
  }
  return limits;
}

std::optional<int> threads_to_set(const Machine& machine, const MachineLimits& limits) {
  if (limits.cpus + 0.5 >= machine.cpus) return std::nullopt;
  return std::max(1, static_cast<int>(limits.cpus));
}

}  // namespace holdfast
