#include "process/signals.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace holdfast {
namespace {

// The last line and exit code of a process that has nothing to save. A handler on any thread may be reading it, so none
// is ever freed; there is one per session.
struct LastWords {
  std::string line;
  int code;
  LastWords* former;
};

static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free &&
                  std::atomic<LastWords*>::is_always_lock_free,
              "a signal handler may touch lock-free atomics only");
std::atomic<int> first_stop{0};
std::atomic<bool> save_requested{false};
std::atomic<bool> interrupted{false};
std::atomic<bool> answers_interrupts{false};
std::atomic<bool> stops_already{false};
std::atomic<bool> on_terminal{false};
std::atomic<LastWords*> last_words{nullptr};
LastWords* all_last_words = nullptr;

constexpr std::string_view kAnswer =
    "\nholdfast: finishing the step, then saving; press again to quit without saving\n";

// Calls only functions that a signal handler may call.
void write_to_stderr(std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

void end_where_nothing_is_to_save() {
  const LastWords* words = last_words.load();
  if (words == nullptr) return;
  write_to_stderr(words->line);
  ::_exit(words->code);
}

extern "C" void note_stop(int signal) {
  if (stops_already.load()) return;
  const int saved_errno = errno;
  int none = 0;
  first_stop.compare_exchange_strong(none, signal);
  end_where_nothing_is_to_save();
  if (signal == SIGINT) {
    struct sigaction at_once {};
    at_once.sa_handler = SIG_DFL;
    sigaction(SIGINT, &at_once, nullptr);
    // A terminal has echoed ^C behind a progress line, so the answer begins a new line there.
    if (!interrupted.exchange(true) && answers_interrupts.load()) write_to_stderr(kAnswer.substr(on_terminal ? 0 : 1));
  }
  errno = saved_errno;
}

extern "C" void note_save(int) { save_requested.store(true); }

extern "C" void let_the_write_fail(int) {}

struct Watched {
  int signal;
  void (*handler)(int);
  bool may_be_ignored;  // an action of "ignore" at the start is kept
  struct sigaction former {};
  bool installed = false;
};
std::array<Watched, 4> watched = {{{SIGTERM, note_stop, false, {}, false},
                                   {SIGINT, note_stop, true, {}, false},
                                   {SIGHUP, note_stop, true, {}, false},
                                   {SIGUSR1, note_save, false, {}, false}}};

void install(int signal, void (*handler)(int)) {
  struct sigaction ours {};
  ours.sa_handler = handler;
  ours.sa_flags = SA_RESTART;
  sigemptyset(&ours.sa_mask);
  sigaction(signal, &ours, nullptr);
}

void let_writes_fail(int signal) {
  struct sigaction present {};
  if (sigaction(signal, nullptr, &present) == 0 && present.sa_handler == SIG_DFL) install(signal, let_the_write_fail);
}

// main() has returned and all is done: a signal that ends the process while LibTorch unloads would make a complete run
// look like a failed one.
void ignore_stops_at_exit() {
  for (const Watched& one : watched) {
    struct sigaction present {};
    if (one.signal != SIGTERM && one.signal != SIGHUP) continue;
    if (sigaction(one.signal, nullptr, &present) == 0 && present.sa_handler == SIG_DFL) ::signal(one.signal, SIG_IGN);
  }
}

void put_former_actions_back() {
  for (Watched& one : watched) {
    if (one.installed) sigaction(one.signal, &one.former, nullptr);
    one.installed = false;
  }
}

}  // namespace

void survive_broken_pipes() { let_writes_fail(SIGPIPE); }

SignalWatch::SignalWatch(bool answers) {
  put_former_actions_back();  // if an earlier session ended early
  first_stop = 0;
  save_requested = false;
  interrupted = false;
  stops_already = false;
  answers_interrupts = answers;
  on_terminal = ::isatty(STDERR_FILENO) == 1;
  for (Watched& one : watched) {
    sigaction(one.signal, nullptr, &one.former);
    if (one.may_be_ignored && one.former.sa_handler == SIG_IGN) continue;
    one.installed = true;
    install(one.signal, one.handler);
  }
  let_writes_fail(SIGPIPE);
  let_writes_fail(SIGXFSZ);
}

SignalWatch::~SignalWatch() { release(); }

std::optional<int> SignalWatch::stop_signal() const {
  const int signal = first_stop.load();
  return signal == 0 ? std::nullopt : std::optional<int>(signal);
}

bool SignalWatch::take_save_request() { return save_requested.exchange(false); }

void SignalWatch::stop_is_under_way() {
  installed_ = false;  // the actions stay to the end of the process
  stops_already = true;
  for (const Watched& one : watched) {
    if (one.installed && one.signal == SIGINT) install(one.signal, one.handler);  // the first SIGINT reset it
  }
}

void SignalWatch::release() {
  if (!installed_) return;
  installed_ = false;
  put_former_actions_back();
  static std::once_flag once;
  std::call_once(once, [] { std::atexit(ignore_stops_at_exit); });
}

NothingToSave::NothingToSave(const std::string& sentence, int code) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  all_last_words = new LastWords{"holdfast: " + sentence + "\n", code, all_last_words};
  last_words = all_last_words;
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
