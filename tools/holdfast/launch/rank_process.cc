#include "launch/rank_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::tools {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> result;
  for (const std::string& word : words) result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

/// Runs in the child. It returns only if the program cannot be executed.
void become(const RankProcess& rank, pid_t launch, char** argv, char** envp) {
  // SIGKILL, because a kill loses no saved work, and a rank without its launcher would hold devices and the run's
  // lease.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launch) ::_exit(1);  // launch ended before prctl took effect
  if (rank.own_group) ::setpgid(0, 0);
  // First moves them to other numbers because one of them may have the number that another must get.
  int mine[3] = {rank.in, rank.out, rank.err};
  for (int& descriptor : mine) descriptor = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  for (int i = 0; i < 3; ++i) {
    if (mine[i] < 0 || ::dup2(mine[i], i) < 0) return;
  }
  if (rank.listening >= 0) ::fcntl(rank.listening, F_SETFD, 0);
  ::signal(SIGPIPE, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &rank.signal_mask, nullptr);
  ::execvpe(argv[0], argv, envp);
}

}  // namespace

StartedRank start(const RankProcess& rank) {
  const auto argv = pointers(rank.program), envp = pointers(rank.environment);
  int report[2];  // carries errno, or is closed when the program runs
  if (::pipe2(report, O_CLOEXEC) != 0) return {.error = errno};
  const pid_t launch = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    become(rank, launch, const_cast<char**>(argv.data()), const_cast<char**>(envp.data()));
    const int error = errno;
    [[maybe_unused]] const ssize_t told = ::write(report[1], &error, sizeof error);
    ::_exit(127);
  }
  const int fork_error = errno;
  ::close(report[1]);
  int error = pid < 0 ? fork_error : 0;
  if (pid > 0) {
    ssize_t got;
    do {
      got = ::read(report[0], &error, sizeof error);
    } while (got < 0 && errno == EINTR);
    if (got != sizeof error) error = 0;
  }
  ::close(report[0]);
  if (error == 0) return {.pid = pid};
  if (pid > 0) ::waitpid(pid, nullptr, 0);
  return {.error = error};
}

}  // namespace holdfast::tools
