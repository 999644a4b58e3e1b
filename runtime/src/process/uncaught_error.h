// How a program ends unexpectedly: an uncaught Error prints its one sentence instead of an abort, and processes that
// depend on this one are informed of the reason.
#pragma once

#include <functional>
#include <string>

namespace holdfast {

/// Makes std::terminate print an uncaught holdfast::Error and exit with code 1; anything else is passed to the previous
/// handler. Call it again after another handler was set, to run before that one.
void report_uncaught_errors();

/// While it lives, `listener` is called once, on the thread that ends the process, with the message of the uncaught
/// exception, or that exit() was called. One at a time. The destructor waits for a running call.
class TellBeforeDeath {
 public:
  explicit TellBeforeDeath(std::function<void(const std::string& why)> listener);
  ~TellBeforeDeath();
  TellBeforeDeath(const TellBeforeDeath&) = delete;
  TellBeforeDeath& operator=(const TellBeforeDeath&) = delete;
};

}  // namespace holdfast
