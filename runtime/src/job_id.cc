#include "job_id.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "host_name.h"

namespace holdfast {
namespace {

// In clock ticks since the host's boot: field 22 of /proc/PID/stat (proc(5)), counted behind the command's name, which
// may hold spaces and parentheses.
std::string start_time_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return "";
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 22; ++number) fields >> field;
  return field;
}

}  // namespace

std::string job_id() {
  if (std::getenv("HOLDFAST_LAUNCH") != nullptr || std::getenv("TORCHELASTIC_RESTART_COUNT") != nullptr) {
    return fmt::format("launcher-{}-{}-{}", host_name(), ::getppid(), start_time_of(::getppid()));
  }
  if (const char* const job = std::getenv("SLURM_JOB_ID"); job != nullptr) {
    const char* const step = std::getenv("SLURM_STEP_ID");
    return fmt::format("slurm-{}-{}", job, step != nullptr ? step : "batch");
  }
  return "";
}

}  // namespace holdfast
