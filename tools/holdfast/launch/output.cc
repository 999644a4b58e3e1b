#include "launch/output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::tools {
namespace {

/// `line` cut to the terminal's width, not counting styling, because a line that wraps could not be erased again.
std::string fitting(const std::string& line, int terminal) {
  winsize size{};
  const std::size_t columns = ::ioctl(terminal, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  std::size_t width = 0;
  bool styled = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      styled = true;
      while (i + 1 < line.size() && line[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(line[i]) & 0xC0) != 0x80 && ++width > columns) {
      return line.substr(0, i) + (styled ? "\x1b[0m" : "");
    }
  }
  return line;
}

}  // namespace

Output::Output(int descriptor) : descriptor_(descriptor), is_terminal_(::isatty(descriptor) == 1) {
  struct stat stat {};
  if (::fstat(descriptor, &stat) != 0 || S_ISREG(stat.st_mode)) return;  // writing to a file never blocks
  // O_NONBLOCK belongs to the open file, which other processes (such as the shell) share, so a pipe or terminal is
  // opened again.
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  if (S_ISFIFO(stat.st_mode) || S_ISCHR(stat.st_mode)) {
    const int mine = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (mine >= 0) {
      descriptor_ = mine;
      own_ = true;
      return;
    }
  }
  may_wait_ = true;
}

Output::~Output() {
  if (own_) ::close(descriptor_);
}

void Output::put(std::string_view bytes) {
  if (error_ == 0) bytes_.append(bytes);
}

void Output::add(std::string_view lines) {
  if (lines.empty()) return;
  if (progress_shown_) put("\r\x1b[K");
  progress_shown_ = false;
  put(lines);
  line_open_ = lines.back() != '\n';
  if (!progress_.empty()) {
    put(fitting(progress_, descriptor_));
    progress_shown_ = true;
  }
}

void Output::add_own_line(std::string_view line) { add((line_open_ ? "\n" : "") + std::string(line) + "\n"); }

void Output::show_progress(std::string line) {
  if (line == progress_) return;
  progress_ = std::move(line);
  if (pending() && !progress_.empty()) return;  // a slow terminal shows the next one
  if (progress_shown_) put("\r\x1b[K");
  progress_shown_ = !progress_.empty();
  if (progress_shown_) put(fitting(progress_, descriptor_));
}

void Output::write_some() {
  while (pending()) {
    std::size_t size = bytes_.size() - begin_;
    if (may_wait_) {
      pollfd ready{descriptor_, POLLOUT, 0};
      if (::poll(&ready, 1, 0) <= 0) break;
      size = std::min<std::size_t>(size, PIPE_BUF);
    }
    const ssize_t written = ::write(descriptor_, bytes_.data() + begin_, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) break;
    if (written < 0) {
      error_ = errno;
      begin_ = bytes_.size();
      break;
    }
    begin_ += static_cast<std::size_t>(written);
  }
  if (begin_ == bytes_.size() || begin_ > (1u << 20)) {
    bytes_.erase(0, begin_);
    begin_ = 0;
  }
}

bool same_place(int one, int other) {
  struct stat a {
  }, b{};
  if (::fstat(one, &a) != 0 || ::fstat(other, &b) != 0) return false;
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace holdfast::tools
