#include "process/job_id.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string_view>

#include "process/host_name.h"

namespace holdfast {
namespace {

struct Process {
  std::string command;  // its first 15 bytes
  pid_t parent = 0;
  std::string start_time;  // in clock ticks since the host's boot
};

// Fields 2, 4 and 22 of /proc/PID/stat (proc(5)). The command may hold spaces and parentheses. All empty if the process
// does not exist.
Process process_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  Process process;
  const auto begin = line.find('('), end = line.rfind(')');
  if (begin == std::string::npos || end == std::string::npos) return process;
  process.command = line.substr(begin + 1, end - begin - 1);
  std::istringstream fields(line.substr(end + 1));
  std::string field;
  for (int number = 3; fields >> field && number < 22; ++number) {
    if (number == 4) process.parent = static_cast<pid_t>(std::strtol(field.c_str(), nullptr, 10));
  }
  process.start_time = field;
  return process;
}

}  // namespace

std::string job_id() {
  if (std::getenv("HOLDFAST_LAUNCH") != nullptr || std::getenv("TORCHELASTIC_RESTART_COUNT") != nullptr) {
    return fmt::format("launcher-{}-{}-{}", host_name(), ::getppid(), process_of(::getppid()).start_time);
  }
  if (const char* const job = std::getenv("SLURM_JOB_ID"); job != nullptr) {
    const char* const step = std::getenv("SLURM_STEP_ID");
    return fmt::format("slurm-{}-{}", job, step != nullptr ? step : "batch");
  }
  return "";
}

std::string mpi_launcher_id() {
  constexpr std::string_view kLaunchers[] = {"hydra_pmi_proxy", "pmi_proxy", "mpiexec.hydra", "mpiexec", "mpirun"};
  for (pid_t pid = ::getppid(); pid > 1;) {
    const Process process = process_of(pid);
    for (const std::string_view name : kLaunchers) {
      if (process.command == name) return fmt::format("{}-{}", pid, process.start_time);
    }
    pid = process.parent;
  }
  return "";
}

}  // namespace holdfast
