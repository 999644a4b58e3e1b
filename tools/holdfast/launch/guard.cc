#include "launch/guard.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "launch/descendants.h"

namespace holdfast::tools {

bool Guard::start() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  const pid_t pid = ::fork();
  if (pid == 0) watch(ends[0]);
  ::close(ends[0]);
  if (pid < 0) {
    ::close(ends[1]);
    return false;
  }
  if (held_ >= 0) ::close(held_);
  held_ = ends[1];
  pid_ = pid;
  return true;
}

void Guard::stop() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  if (held_ >= 0) ::close(held_);
  held_ = -1;
}

void Guard::watch(int launch_lives) const {
  // Neither the terminal's signals nor one to launch's process group may reach it, and nobody shall wait for an end of
  // file, or for a lock, because it still holds a descriptor.
  ::setsid();
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::prctl(PR_SET_NAME, "launch-guard");
  // By its environment the guard of a launch around this one would find it, and end it before its work is done.
  for (char** entry = environ; *entry; ++entry) std::memset(*entry, 0, std::strlen(*entry));
  ::dup2(launch_lives, 0);
  ::close_range(1, ~0u, 0);
  char byte;
  while (::read(0, &byte, 1) < 0 && errno == EINTR) {
  }
  // A process that forks while it is looked for is found the next time; one that the kernel cannot end now (it waits
  // for a disk) ends later.
  for (int i = 0; i < 100 && kill_started_with(entry_) > 0; ++i) ::usleep(20'000);
  // A rank that was about to end may have written it once more.
  for (int i = 0; i < 100; ++i) {
    ::unlink((folder_ + "/progress").c_str());
    if (::rmdir(folder_.c_str()) == 0 || errno != ENOTEMPTY) break;
    ::usleep(20'000);
  }
  ::_exit(0);
}

}  // namespace holdfast::tools
