#include "holdfast/storage/run/death_note.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "holdfast/storage/run/history.h"

namespace holdfast::storage {
namespace {

struct Cause {
  int signal;  // 0: an uncaught exception
  const char* name;
};
constexpr std::array<Cause, 5> kCauses = {
    {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGABRT, "SIGABRT"}, {0, "uncaught exception"}}};

// Everything that a dying process needs, prepared in advance: one finished note for every cause and step count.
// Handlers read it through an atomic pointer and never free it.
struct Prepared {
  pid_t pid = 0;
  std::string path;
  std::string folder;
  std::array<std::vector<std::string>, kCauses.size()> notes;  // by cause, by steps since loading
};

std::atomic<Prepared*> armed{nullptr};
std::atomic<std::uint64_t> steps_since_loading{0};
std::array<struct sigaction, kCauses.size()> previous_actions;
std::terminate_handler previous_terminate = nullptr;
bool installed = false;

// Async-signal-safe: open, write, fsync and close only (signal-safety(7)).
void write_note(std::size_t cause) {
  Prepared* prepared = armed.exchange(nullptr);  // one note a process, even if it fails again while it dies
  const std::uint64_t steps = steps_since_loading.load();
  if (prepared == nullptr || prepared->pid != ::getpid() || steps >= kPoisonSteps) return;
  const int saved_errno = errno;
  const std::string& note = prepared->notes[cause][steps];
  const int fd = ::open(prepared->path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd >= 0) {
    std::size_t written = 0;
    while (written < note.size()) {
      const ssize_t got = ::write(fd, note.data() + written, note.size() - written);
      if (got < 0 && errno != EINTR) break;
      if (got > 0) written += static_cast<std::size_t>(got);
    }
    ::fsync(fd);
    ::close(fd);
    const int folder = ::open(prepared->folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
      ::fsync(folder);
      ::close(folder);
    }
  }
  errno = saved_errno;
}

void on_signal(int signal, siginfo_t* info, void*) {
  for (std::size_t cause = 0; cause < kCauses.size(); ++cause) {
    if (kCauses[cause].signal != signal) continue;
    write_note(cause);
    ::sigaction(signal, &previous_actions[cause], nullptr);
  }
  // A fault of this process recurs when the handler returns; a signal that was sent has to be raised again.
  if (info == nullptr || info->si_code <= 0) ::raise(signal);
}

[[noreturn]] void on_terminate() {
  write_note(kCauses.size() - 1);
  if (previous_terminate != nullptr) previous_terminate();
  std::abort();
}

/// Gives this thread an alternative signal stack, unless it has one, because the handler cannot run on a stack that
/// overflowed.
void give_alternative_stack() {
  stack_t present{};
  if (::sigaltstack(nullptr, &present) != 0 || (present.ss_flags & SS_DISABLE) == 0) return;
  // Never freed: the kernel keeps the address for as long as the thread runs.
  static auto& stacks = *new std::vector<std::unique_ptr<std::array<char, 64 * 1024>>>;
  stacks.push_back(std::make_unique<std::array<char, 64 * 1024>>());
  stack_t stack{};
  stack.ss_sp = stacks.back()->data();
  stack.ss_size = stacks.back()->size();
  ::sigaltstack(&stack, nullptr);
}

void install() {
  static std::mutex mutex;
  const std::lock_guard hold(mutex);
  give_alternative_stack();
  if (installed) return;
  installed = true;
  for (std::size_t cause = 0; cause < kCauses.size(); ++cause) {
    if (kCauses[cause].signal == 0) continue;
    // Set before the handler can run, because the handler reads it.
    ::sigaction(kCauses[cause].signal, nullptr, &previous_actions[cause]);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(kCauses[cause].signal, &action, nullptr);
  }
  previous_terminate = std::get_terminate();
  std::set_terminate(on_terminate);
}

}  // namespace

void arm_death_note(const Path& run_folder, const Note& note) {
  auto prepared = std::make_unique<Prepared>();
  prepared->pid = ::getpid();
  prepared->path = (run_folder / entry_name(note.uid, EntryKind::note)).string();
  prepared->folder = (run_folder / "journal").string();
  for (std::size_t cause = 0; cause < kCauses.size(); ++cause) {
    for (std::uint64_t steps = 0; steps < kPoisonSteps; ++steps) {
      Note dying = note;
      dying.kind = NoteKind::death;
      dying.reason = kCauses[cause].name;
      dying.details["steps"] = steps;
      prepared->notes[cause].push_back(encode(dying));
    }
  }
  steps_since_loading = 0;
  install();
  armed = prepared.release();  // never freed: a handler may still be reading the previous one
}

void death_note_steps(std::uint64_t steps) { steps_since_loading = steps; }

void disarm_death_note() { armed = nullptr; }

}  // namespace holdfast::storage
