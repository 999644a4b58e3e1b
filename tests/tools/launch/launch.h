// Runs holdfast launch: to its end, or while a test observes it.
#pragma once

#include <signal.h>

#include <chrono>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "command.h"

using Words = std::vector<std::string>;

inline std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// The lines that begin with `prefix`; those of other ranks may be between them.
inline std::string lines_with(const std::string& prefix, const std::string& text) {
  std::string lines;
  for (const std::string& line : lines_of(text)) {
    if (line.starts_with(prefix)) lines += line + "\n";
  }
  return lines;
}

inline int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

inline bool contains(const std::string& text, const std::string& part) { return count(text, part) > 0; }

/// A long limit, for a busy machine; the awaited events usually take milliseconds.
inline bool soon(const std::function<bool()>& happened) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!happened()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

/// 'R', 'S', 'T', …; 0 if the process does not exist.
inline char state_of(pid_t pid) {
  const std::string stat = content_of("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = stat.rfind(')');
  return name_end == std::string::npos ? '\0' : stat[name_end + 2];
}

inline bool has_temporary_folder(const std::string& parent) {
  for (const auto& entry : boost::filesystem::directory_iterator(parent)) {
    if (contains(entry.path().string(), "holdfast-launch-")) return true;
  }
  return false;
}

inline bool is_gone(pid_t pid) { return state_of(pid) == 0 || state_of(pid) == 'Z'; }

/// A launch that runs while the test observes it. Ranks find the test's folder in $HERE.
class Launch {
 public:
  explicit Launch(Words words, bool on_terminal = false, bool ignores_hangup = false) {
    const std::string program = program_beside("holdfast");
    words.insert(words.begin(), {program, "launch"});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = on_terminal ? ::forkpty(&terminal_, nullptr, nullptr, nullptr) : ::fork();
    if (pid_ == 0) {
      ::setenv("HERE", folder().c_str(), 1);
      ::setenv("TMPDIR", folder().c_str(), 1);
      if (ignores_hangup) ::signal(SIGHUP, SIG_IGN);
      if (!on_terminal) {
        ::dup2(::open((folder() + "/out").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 1);
        ::dup2(::open((folder() + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 2);
      }
      ::execv(program.c_str(), argv.data());
      ::_exit(127);
    }
    if (on_terminal) {
      reader_ = std::thread([this] {
        char buffer[4096];
        for (ssize_t got; (got = ::read(terminal_, buffer, sizeof buffer)) > 0;) {
          std::ofstream(folder() + "/out", std::ios::app).write(buffer, got);
        }
      });
    }
  }
  ~Launch() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
    if (terminal_ >= 0) ::close(terminal_);
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  std::string folder() const { return scratch_.path().string(); }
  std::string out() const { return content_of(scratch_ / "out"); }
  std::string err() const { return content_of(scratch_ / "err"); }
  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  void type(char key) const { REQUIRE(::write(terminal_, &key, 1) == 1); }
  /// The process whose id a rank wrote to $HERE/NAME.
  pid_t process(const std::string& name) const {
    REQUIRE(soon([&] { return contains(content_of(scratch_ / name), "\n"); }));
    return std::stoi(content_of(scratch_ / name));
  }
  bool prints(const std::string& text, int times = 1) const {
    return soon([&] { return count(out(), text) >= times; });
  }
  /// The exit code, or minus the signal.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    if (reader_.joinable()) reader_.join();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  ScratchFolder scratch_;
  pid_t pid_ = -1;
  int terminal_ = -1;
  std::thread reader_;
};

inline Said launch(Words words) {
  words.insert(words.begin(), "launch");
  return holdfast_command(words);
}

/// A program that waits for signals; `on_signal` defines which, and what to do.
inline std::string patient(const std::string& on_signal) {
  return on_signal + "\necho ready; while :; do sleep 0.02; done";
}
