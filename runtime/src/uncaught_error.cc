#include "uncaught_error.h"

#include <c10/util/Exception.h>
#include <torch/csrc/utils/cpp_stacktraces.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "holdfast/runtime/error.h"
#include "holdfast/storage/death_note.h"

namespace holdfast {
namespace {

std::terminate_handler first_handler = nullptr;  // the system's, or the program's
std::terminate_handler next_handler = nullptr;
bool passed_on = false;  // a handler set later ends in the one it found: ours

std::function<void(const std::string&)>& listener() {
  static auto* const last = new std::function<void(const std::string&)>;  // outlives static destructors
  return *last;
}

pid_t listens = 0;  // the process: what it forks inherits the listener, and ends for reasons of its own

void tell(const std::string& why) {
  if (::getpid() != listens) return;
  if (const auto once = std::exchange(listener(), {})) once(why);
}

// What the system's handler would say, without the trace of LibTorch's own frames: in Python, too, that comes only
// where this variable asks for it.
void say_without_trace(const c10::Error& error) {
  std::fprintf(stderr, "holdfast: %s\n(TORCH_SHOW_CPP_STACKTRACES=1 shows where LibTorch found it)\n",
               error.what_without_backtrace());
}

[[noreturn]] void on_terminate() {
  const std::terminate_handler next = passed_on ? first_handler : next_handler;
  if (const std::exception_ptr current = std::current_exception()) {
    try {
      std::rethrow_exception(current);
    } catch (const Error& error) {
      tell(error.what());
      // Said and understood: no death that a checkpoint could be to blame for.
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
      tell("an exception that is no std::exception");
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
  if (first_handler == nullptr) first_handler = present;
  next_handler = present;
  std::set_terminate(on_terminate);
}

void tell_before_death(std::function<void(const std::string&)> told) {
  static const bool registered = std::atexit([] { tell("it called exit() before session.finish()"); }) == 0;
  (void)registered;
  listens = ::getpid();
  listener() = std::move(told);
}

}  // namespace holdfast
