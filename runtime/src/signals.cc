#include "holdfast/runtime/signals.h"

#include <atomic>
#include <cerrno>

namespace holdfast {
namespace {

static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");
std::atomic<int> first_stop{0};
std::atomic<int> save_requested{0};

extern "C" void note_stop(int signal) {
  const int saved_errno = errno;
  int none = 0;
  first_stop.compare_exchange_strong(none, signal);
  if (signal == SIGINT) {
    struct sigaction at_once {};
    at_once.sa_handler = SIG_DFL;
    sigaction(SIGINT, &at_once, nullptr);
  }
  errno = saved_errno;
}

extern "C" void note_save(int) { save_requested.store(1); }

}  // namespace

SignalWatch::SignalWatch() {
  first_stop = 0;
  save_requested = 0;
  const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGXFSZ};
  for (int i = 0; i < 5; ++i) {
    auto& former = former_[i];
    former.signal = signals[i];
    sigaction(former.signal, nullptr, &former.action);
    const bool may_be_ignored = former.signal == SIGHUP || former.signal == SIGINT;
    if (may_be_ignored && former.action.sa_handler == SIG_IGN) continue;
    struct sigaction ours {};
    ours.sa_handler = former.signal == SIGXFSZ ? SIG_IGN : former.signal == SIGUSR1 ? note_save : note_stop;
    ours.sa_flags = SA_RESTART;
    sigemptyset(&ours.sa_mask);
    former.installed = sigaction(former.signal, &ours, nullptr) == 0;
  }
}

SignalWatch::~SignalWatch() {
  for (const auto& former : former_) {
    if (former.installed) sigaction(former.signal, &former.action, nullptr);
  }
}

std::optional<int> SignalWatch::stop_signal() const {
  const int signal = first_stop.load();
  return signal == 0 ? std::nullopt : std::optional<int>(signal);
}

bool SignalWatch::take_save_request() { return save_requested.exchange(0) != 0; }

std::string_view signal_name(int signal) {
  switch (signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "signal";
  }
}

}  // namespace holdfast
