#include "holdfast/storage/process.h"

#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace holdfast::storage {

std::optional<ProcessStat> read_process_stat(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  // getline, because an istreambuf_iterator throws if the process ends between the open and the read (ESRCH).
  std::string line;
  std::getline(file, line, '\0');
  // The command may contain any characters, so the fields after it count from the last parenthesis.
  const std::size_t begin = line.find('('), end = line.rfind(')');
  if (begin == std::string::npos || end == std::string::npos) return std::nullopt;
  ProcessStat stat;
  stat.command = line.substr(begin + 1, end - begin - 1);
  constexpr int kStateField = 3, kParentField = 4, kStartField = 22;
  std::istringstream fields(line.substr(end + 1));
  std::string field;
  for (int number = kStateField; number <= kStartField && fields >> field; ++number) {
    if (number == kStateField) stat.has_ended = field == "Z" || field == "X";
    if (number == kParentField) stat.parent = static_cast<pid_t>(std::strtol(field.c_str(), nullptr, 10));
    if (number == kStartField) stat.start = field;
  }
  return stat;
}

std::string boot_id() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

std::string pid_space() {
  boost::system::error_code error;
  const std::string space = boost::filesystem::read_symlink("/proc/self/ns/pid", error).string();
  const std::string boot = boot_id();
  return error || boot.empty() ? "" : boot + "/" + space;
}

}  // namespace holdfast::storage
