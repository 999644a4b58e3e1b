#include "process/uncaught_error.h"

#include <c10/util/Exception.h>
#include <torch/csrc/utils/cpp_stacktraces.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <utility>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/run/death_note.h"

namespace holdfast {
namespace {

// Any thread may end the process, while another one sets these.
std::atomic<std::terminate_handler> first_handler{nullptr};  // the system's, or the program's
std::atomic<std::terminate_handler> next_handler{nullptr};
std::atomic<bool> passed_on{false};  // a later handler called the one it found, which is this one

struct Listening {
  // Held while the listener is called, so that nothing it uses is destroyed during the call; recursive, because the
  // listener itself may end the process.
  std::recursive_mutex mutex;
  std::function<void(const std::string&)> listener;
};

Listening& listening() {
  static auto* const one = new Listening;  // outlives static destructors
  return *one;
}

// The process to report for: a forked child inherits the listener, but ends for reasons of its own.
std::atomic<pid_t> listens{0};

void tell(const std::string& why) {
  if (::getpid() != listens) return;
  const std::lock_guard lock(listening().mutex);
  if (const auto once = std::exchange(listening().listener, {})) once(why);
}

// Prints what the system's handler would, without LibTorch's stack trace: as in Python, the trace is printed only if
// this variable is set.
void say_without_trace(const c10::Error& error) {
  std::fprintf(stderr, "holdfast: %s\n(set TORCH_SHOW_CPP_STACKTRACES=1 to see the stack trace)\n",
               error.what_without_backtrace());
}

[[noreturn]] void on_terminate() {
  const std::terminate_handler next = (passed_on ? first_handler : next_handler).load();
  if (const std::exception_ptr current = std::current_exception()) {
    try {
      std::rethrow_exception(current);
    } catch (const Error& error) {
      tell(error.what());
      // The error is reported, so the checkpoint cannot be the cause of this death.
      storage::disarm_death_note();
      std::fprintf(stderr, "holdfast: %s\n", error.what());
      std::fflush(nullptr);
      std::_Exit(1);
    } catch (const c10::Error& error) {
      tell(error.what_without_backtrace());
      if (next == __gnu_cxx::__verbose_terminate_handler && !torch::get_cpp_stacktraces_enabled()) {
        say_without_trace(error);
        std::abort();
      }
    } catch (const std::exception& error) {
      tell(error.what());
    } catch (...) {
      tell("an exception that is not a std::exception");
    }
  }
  passed_on = true;
  if (next != nullptr) next();
  std::abort();
}

}  // namespace

void report_uncaught_errors() {
  const std::terminate_handler present = std::get_terminate();
  if (present == on_terminate) return;
  std::terminate_handler nobody = nullptr;
  first_handler.compare_exchange_strong(nobody, present);
  next_handler = present;
  std::set_terminate(on_terminate);
}

TellBeforeDeath::TellBeforeDeath(std::function<void(const std::string&)> listener) {
  static const bool registered = std::atexit([] { tell("it called exit() before session.finish()"); }) == 0;
  (void)registered;
  const std::lock_guard lock(listening().mutex);
  listens = ::getpid();
  listening().listener = std::move(listener);
}

TellBeforeDeath::~TellBeforeDeath() {
  const std::lock_guard lock(listening().mutex);
  listening().listener = {};
}

}  // namespace holdfast
