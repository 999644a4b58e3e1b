#include "launch/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

namespace holdfast::tools {

Signals::Signals() {
  sigset_t ours;
  sigemptyset(&ours);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGCHLD}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    const bool may_be_ignored = signal != SIGCHLD && signal != SIGCONT;
    if (!(may_be_ignored && action.sa_handler == SIG_IGN)) sigaddset(&ours, signal);
  }
  sigprocmask(SIG_BLOCK, &ours, &former_mask_);
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &usual, nullptr);  // if it were ignored, the exit statuses of ranks would be lost
  usual.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &usual, nullptr);  // a reader that closes its pipe must not end launch and leave ranks behind
  descriptor_ = ::signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

Signals::~Signals() {
  // The mask stays because a late signal must not change the exit code that launch is about to return.
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::optional<Signals::Arrived> Signals::take() {
  signalfd_siginfo info{};
  if (::read(descriptor_, &info, sizeof info) != sizeof info) return std::nullopt;
  return Arrived{static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL};
}

bool Signals::stops(int signal) {
  return signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT;
}

}  // namespace holdfast::tools
