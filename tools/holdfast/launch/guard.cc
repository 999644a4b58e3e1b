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
  // Neither the terminal's signals nor those to launch's process group may reach the guard. It also must not hold
  // descriptors, or others would wait for an end of file or a lock.
  ::setsid();
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::prctl(PR_SET_NAME, "launch-guard");
  // The guard of an outer launch would find this guard by its environment and end it before its work is done.
  for (char** entry = environ; *entry; ++entry) std::memset(*entry, 0, std::strlen(*entry));
  ::dup2(launch_lives, 0);
  ::close_range(1, ~0u, 0);
  char byte;
  while (::read(0, &byte, 1) < 0 && errno == EINTR) {
  }
  // A process that forks during the search is found in the next round. One that the kernel cannot end now (it waits for
  // a disk) ends later.
  for (int i = 0; i < 100 && kill_started_with(entry_) > 0; ++i) ::usleep(20'000);
  // A rank that was about to end may have written the file once more.
  for (int i = 0; i < 100; ++i) {
    ::unlink((folder_ + "/progress").c_str());
    if (::rmdir(folder_.c_str()) == 0 || errno != ENOTEMPTY) break;
    ::usleep(20'000);
  }
  ::_exit(0);
}

}  // namespace holdfast::tools
