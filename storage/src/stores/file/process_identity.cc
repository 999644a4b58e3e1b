#include "stores/file/process_identity.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include "holdfast/storage/process.h"

namespace holdfast::storage {
namespace {

/// The start time of a process; empty if it does not exist or has ended.
std::string start_of(const std::string& pid) {
  const auto stat = read_process_stat(static_cast<pid_t>(std::strtol(pid.c_str(), nullptr, 10)));
  return stat && !stat->has_ended ? stat->start : "";
}

}  // namespace

std::string this_process() {
  const std::string pid = std::to_string(::getpid());
  return "process " + pid + " " + start_of(pid) + " " + pid_space();
}

ProcessState state_of_process(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::string what, pid, start, space;
  words >> what >> pid >> start >> space;
  if (what != "process" || space.empty() || space != pid_space()) return ProcessState::unknown;
  if (pid.find_first_not_of("0123456789") != std::string::npos) return ProcessState::unknown;
  return start_of(pid) == start ? ProcessState::running : ProcessState::gone;
}

}  // namespace holdfast::storage
