#include "launch/descendants.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "holdfast/storage/process.h"

namespace holdfast::tools {
namespace {

/// The whole content of a small file of /proc; empty if the process is gone or belongs to another user.
std::string contents(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  std::string bytes;
  char buffer[8192];
  for (ssize_t got; (got = ::read(file, buffer, sizeof buffer)) > 0;) bytes.append(buffer, static_cast<size_t>(got));
  ::close(file);
  return bytes;
}

template <class F>
void for_each_process(F visit) {
  DIR* folder = ::opendir("/proc");
  if (!folder) return;
  while (const dirent* entry = ::readdir(folder)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid > 0) visit(pid, std::string("/proc/") + entry->d_name);
  }
  ::closedir(folder);
}

}  // namespace

std::vector<pid_t> living_children() {
  std::vector<pid_t> children;
  const pid_t self = ::getpid();
  for_each_process([&](pid_t pid, const std::string&) {
    const auto stat = storage::read_process_stat(pid);
    if (stat && !stat->has_ended && stat->parent == self) children.push_back(pid);
  });
  return children;
}

int kill_started_with(const std::string& entry) {
  int found = 0;
  const std::string needle = '\0' + entry + '\0';
  for_each_process([&](pid_t pid, const std::string& folder) {
    if (pid == ::getpid()) return;
    if (('\0' + contents(folder + "/environ") + '\0').find(needle) == std::string::npos) return;
    ++found;
    ::kill(pid, SIGKILL);
  });
  return found;
}

}  // namespace holdfast::tools
