// How a program ends that nobody planned: an Error that nobody catches prints its one sentence instead of an abort, and
// whoever depends on this process hears why it leaves.
#pragma once

#include <functional>
#include <string>

namespace holdfast {

/// Makes std::terminate print an uncaught holdfast::Error and exit with code 1; anything else goes on to the handler
/// that was there. Call again after another handler was set, to stand before it.
void report_uncaught_errors();

/// Called once with the words of an exception that nobody caught, or with what exit() was called for, before the
/// process ends. Empty: nobody listens. One at a time.
void tell_before_death(std::function<void(const std::string& why)> listener);

}  // namespace holdfast
