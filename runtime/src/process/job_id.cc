#include "process/job_id.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "holdfast/runtime/platform/launcher.h"
#include "holdfast/storage/process.h"
#include "process/host_name.h"

namespace holdfast {
namespace {

std::string start_of(pid_t pid) {
  const auto stat = storage::read_process_stat(pid);
  return stat ? stat->start : "";
}

}  // namespace

std::string job_id() {
  if (std::getenv(detail::kLaunchVariable) != nullptr || std::getenv("TORCHELASTIC_RESTART_COUNT") != nullptr) {
    return fmt::format("launcher-{}-{}-{}", host_name(), ::getppid(), start_of(::getppid()));
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
    const auto process = storage::read_process_stat(pid);
    if (!process) break;
    for (const std::string_view name : kLaunchers) {
      if (process->command == name) return fmt::format("{}-{}", pid, process->start);
    }
    pid = process->parent;
  }
  return "";
}

}  // namespace holdfast
