#include "launch/world.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>

#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/runtime/platform/machine_limits.h"
#include "holdfast/runtime/platform/surroundings.h"

namespace holdfast::tools {
namespace {

bool is_number(const std::string& text) {
  return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
}

int devices_of_this_host() {
  int count = 0;
  DIR* folder = ::opendir("/dev");
  if (!folder) return 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.rfind("nvidia", 0) == 0 && is_number(name.substr(6))) ++count;
  }
  ::closedir(folder);
  return count;
}

int cores() {
  const Machine machine = this_machine();
  return threads_to_set(machine, limits_of(machine, look_around())).value_or(machine.cpus);
}

}  // namespace

std::optional<Rendezvous> parse_rendezvous(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || !is_number(text.substr(colon + 1))) return std::nullopt;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return std::nullopt;  // an IPv6 address without its port
  }
  const int port = std::atoi(text.c_str() + colon + 1);
  if (host.empty() || port < 1 || port > 65535) return std::nullopt;
  return Rendezvous{host, port};
}

int ranks_for_devices() {
  const int devices = devices_of_this_host();
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (devices == 0 || !visible) return std::max(devices, 1);
  // Like CUDA: numbers or ids with commas between them; the first one that names no device ends the list.
  int count = 0;
  std::istringstream list{std::string(visible)};
  for (std::string entry; std::getline(list, entry, ',');) {
    entry.erase(std::remove(entry.begin(), entry.end(), ' '), entry.end());
    const bool id = entry.rfind("GPU-", 0) == 0 || entry.rfind("MIG-", 0) == 0;
    if (!id && !(is_number(entry) && std::atoi(entry.c_str()) < devices)) break;
    ++count;
  }
  return std::max(count, 1);
}

std::vector<std::string> environment_of(const World& world, int local, const StartFacts& start) {
  std::map<std::string, std::string> ours = {
      {"RANK", std::to_string(world.rank_of(local))},
      {"WORLD_SIZE", std::to_string(world.size())},
      {"LOCAL_RANK", std::to_string(local)},
      {"LOCAL_WORLD_SIZE", std::to_string(world.ranks_here)},
      {"MASTER_ADDR", world.address},
      {"MASTER_PORT", std::to_string(world.port)},
      {detail::kLaunchVariable, "1"},
      {detail::kRestartVariable, std::to_string(start.number)},
      {detail::kProgressVariable, start.progress_file},
  };
  const bool has_socket = world.rank_of(local) == 0 && start.listening >= 0;
  if (has_socket) ours[detail::kListenVariable] = std::to_string(start.listening);
  // Otherwise every rank's OpenMP uses all cores, and the ranks together are slower than one alone.
  if (world.ranks_here > 1 && !std::getenv("OMP_NUM_THREADS")) {
    ours[detail::kThreadsVariable] = "1";  // the user set no number, so a version's own number counts
    ours["OMP_NUM_THREADS"] = std::to_string(std::max(1, cores() / world.ranks_here));
  }

  std::vector<std::string> result;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    // For a launch inside a launch or a torchrun: the outer one's socket and store are not for these ranks.
    const bool outer = name == detail::kListenVariable || name.starts_with("TORCHELASTIC_");
    if (!outer && ours.find(name) == ours.end()) result.push_back(text);
  }
  for (const auto& [name, value] : ours) result.push_back(name + "=" + value);
  return result;
}

std::string own_entry(const std::string& progress_file) {
  return std::string(detail::kProgressVariable) + "=" + progress_file;
}

}  // namespace holdfast::tools
