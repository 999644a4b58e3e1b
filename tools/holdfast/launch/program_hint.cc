#include "launch/program_hint.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

#include "holdfast/storage/text/nearest_name.h"
#include "terminal/phrases.h"

namespace holdfast::tools {
namespace {

bool is_program(const std::string& path) {
  struct stat stat {};
  return ::stat(path.c_str(), &stat) == 0 && S_ISREG(stat.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

std::vector<std::string> programs_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* opened = ::opendir(folder.c_str());
  if (!opened) return names;
  while (const dirent* entry = ::readdir(opened)) {
    if (is_program(folder + "/" + entry->d_name)) names.emplace_back(entry->d_name);
  }
  ::closedir(opened);
  return names;
}

std::string meant_program(const std::string& program) {
  const auto slash = program.rfind('/');
  if (slash != std::string::npos) {
    const std::string folder = program.substr(0, slash);
    const std::string name = storage::meant_name(program.substr(slash + 1), programs_in(folder.empty() ? "/" : folder));
    return name.empty() ? name : folder + "/" + name;
  }
  if (const std::string here = storage::meant_name(program, programs_in(".")); !here.empty()) return "./" + here;
  std::vector<std::string> names;
  const char* path = std::getenv("PATH");
  std::istringstream folders{std::string(path ? path : "")};
  for (std::string folder; std::getline(folders, folder, ':');) {
    for (std::string& name : programs_in(folder)) names.push_back(std::move(name));
  }
  return storage::meant_name(program, names);
}

}  // namespace

std::string why_not_started(const std::string& program, int error) {
  const std::string name = in_quotes(program);
  struct stat stat {};
  const bool there = program.find('/') != std::string::npos && ::stat(program.c_str(), &stat) == 0;
  if (there && S_ISDIR(stat.st_mode)) return name + " is a folder, not a program";
  if (error == EACCES) {
    const bool python = program.size() > 3 && program.compare(program.size() - 3, 3, ".py") == 0;
    return name + " is not executable; make it executable with chmod +x" +
           (python ? ", or start it as: python3 " + program : "");
  }
  if (error == ENOENT && there) return name + " cannot be started: the interpreter named in its first line is missing";
  if (error == ENOENT || error == ENOTDIR) {
    const std::string meant = meant_program(program);
    return "there is no program " + name + (meant.empty() ? "" : "; did you mean " + printable(meant) + "?");
  }
  return name + " cannot be started: " + std::strerror(error);
}

}  // namespace holdfast::tools
