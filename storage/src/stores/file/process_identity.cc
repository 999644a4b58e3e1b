#include "stores/file/process_identity.h"

#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <fstream>
#include <iterator>
#include <sstream>

namespace holdfast::storage {
namespace {

std::string first_word_of(const std::string& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

/// The boot and the pid namespace, because a pid means another process after a boot or in another container.
std::string pid_space() {
  boost::system::error_code error;
  const std::string space = boost::filesystem::read_symlink("/proc/self/ns/pid", error).string();
  const std::string boot = first_word_of("/proc/sys/kernel/random/boot_id");
  return error || boot.empty() ? "" : boot + "/" + space;
}

/// The start time of a process. proc(5), /proc/PID/stat: the name in parentheses may contain any characters, so fields
/// count from the last parenthesis. Empty if the process does not exist or is a zombie.
std::string start_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return "";
  std::istringstream fields(stat.substr(name_end + 1));
  constexpr int kStateField = 3, kStartField = 22;
  std::string field;
  for (int number = kStateField; number <= kStartField && fields >> field; ++number) {
    if (number == kStateField && (field == "Z" || field == "X")) return "";
  }
  return field;
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
