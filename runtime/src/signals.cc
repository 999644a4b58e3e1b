#include "holdfast/runtime/signals.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace holdfast {
namespace {

static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");
std::atomic<int> first_stop{0};
std::atomic<int> save_requested{0};
std::atomic<const char*> last_words{nullptr};  // of a process that has nothing to save
std::atomic<int> last_code{0};
static_assert(std::atomic<const char*>::is_always_lock_free);

// Only what a signal handler may call.
void end_where_nothing_is_to_save() {
  const char* words = last_words.load();
  if (words == nullptr) return;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, words, std::strlen(words));
  ::_exit(last_code.load());
}

extern "C" void note_stop(int signal) {
  const int saved_errno = errno;
  int none = 0;
  first_stop.compare_exchange_strong(none, signal);
  end_where_nothing_is_to_save();
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

NothingToSave::NothingToSave(const std::string& sentence, int code) : line_("holdfast: " + sentence + "\n") {
  last_code = code;
  last_words = line_.c_str();
  if (first_stop != 0) end_where_nothing_is_to_save();
}

NothingToSave::~NothingToSave() { last_words = nullptr; }

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
