// Runs the real holdfast command and keeps its output.
#pragma once

#include <fcntl.h>
#include <linux/capability.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "catch.h"
#include "program_beside.h"
#include "storage/scratch_folder.h"

struct Said {
  int code = -1;  // the exit code, or minus the signal
  std::string out = {};
  std::string err = {};
  std::uint64_t bytes_read = 0;  // by read calls, including those of the dynamic loader
  double seconds = 0;
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

struct Running {
  bool on_terminal = false;
  bool no_color = false;
  std::string folder = {};   // working directory
  bool as_any_user = false;  // files without permission are closed to root too
};

/// What can be read of it: a file of /proc cannot be read to its end when the process has just ended.
inline std::string content_of(const boost::filesystem::path& path) {
  std::ifstream file(path.string(), std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const boost::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path.string(), std::ios::binary) << bytes;
}

inline Said holdfast_command(std::vector<std::string> arguments, const Running& how = {}) {
  ScratchFolder scratch;
  const std::string out = (scratch / "out").string(), err = (scratch / "err").string();
  const std::string program = program_beside("holdfast");
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  Said said;
  int terminal = -1;
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = how.on_terminal ? ::forkpty(&terminal, nullptr, nullptr, nullptr) : ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!how.folder.empty() && ::chdir(how.folder.c_str()) != 0) ::_exit(126);
    if (how.as_any_user) {
      for (const int right : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH}) ::prctl(PR_CAPBSET_DROP, right, 0, 0, 0);
    }
    how.no_color ? ::setenv("NO_COLOR", "1", 1) : ::unsetenv("NO_COLOR");
    ::setenv("TERM", "xterm", 1);
    if (!how.on_terminal) {
      ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0644), 1);
      ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0644), 2);
    }
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  if (how.on_terminal) {
    char buffer[4096];
    for (ssize_t got; (got = ::read(terminal, buffer, sizeof buffer)) > 0;) {
      said.out.append(buffer, static_cast<std::size_t>(got));
    }
    ::close(terminal);
  }
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);  // its accounting data exist until it is reaped
  std::ifstream accounts("/proc/" + std::to_string(child) + "/io");
  for (std::string key; accounts >> key;) {
    std::uint64_t value = 0;
    accounts >> value;
    if (key == "rchar:") said.bytes_read = value;
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  said.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  said.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  if (!how.on_terminal) {
    said.out = content_of(out);
    said.err = content_of(err);
  }
  return said;
}
