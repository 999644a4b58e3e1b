#include "doctor/other_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>

#include "terminal/phrases.h"

namespace holdfast::tools {

using Clock = std::chrono::steady_clock;

namespace {

bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// False if the time is over first.
bool read_all(int descriptor, std::string& text, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{descriptor, POLLIN, 0};
    const int ready = left > 0 ? ::poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace

storage::Result<std::string> in_other_process(const std::string& what, const std::function<std::string()>& work,
                                              std::chrono::seconds patience) {
  const auto failed = [&](const std::string& why) {
    return storage::Status(storage::StatusCode::unreadable, what + why);
  };
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failed(std::string(": cannot make a pipe: ") + std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) return failed(std::string(": cannot start a process: ") + std::strerror(errno));
  if (child == 0) {
    ::close(ends[0]);
    int code = 1;
    try {
      code = write_all(ends[1], work()) ? 0 : 1;
    } catch (const std::exception&) {
    }
    ::_exit(code);
  }
  ::close(ends[1]);
  std::string text;
  const bool complete = read_all(ends[0], text, Clock::now() + patience);
  ::close(ends[0]);
  if (!complete) {
    // Waiting for a process that itself waits for a dead server would hang too.
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, WNOHANG);
    return failed(" did not answer within " + storage::format_duration(patience) +
                  "; mount it again, or choose another folder with --holdfast.dir");
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return failed(": the process that tried it ended early");
  return text;
}

}  // namespace holdfast::tools
