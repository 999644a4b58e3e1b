// How a program ends that nobody planned: an Error that nobody catches prints its one sentence instead of an abort, and
// whoever depends on this process hears why it leaves.
#pragma once

#include <functional>
#include <string>

namespace holdfast {

/// Makes std::terminate print an uncaught holdfast::Error and exit with code 1; anything else goes on to the handler
/// that was there. Call again after another handler was set, to stand before it.
void report_uncaught_errors();

/// While it lives, `listener` is called once, on whichever thread ends the process, with the words of an exception that
/// nobody caught, or with what exit() was called for. One at a time. The destructor waits for a call under way.
class TellBeforeDeath {
 public:
  explicit TellBeforeDeath(std::function<void(const std::string& why)> listener);
  ~TellBeforeDeath();
  TellBeforeDeath(const TellBeforeDeath&) = delete;
  TellBeforeDeath& operator=(const TellBeforeDeath&) = delete;
};

}  // namespace holdfast
